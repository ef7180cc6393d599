"""Refuses a run on this machine that its memory cannot hold, before anything is read or allocated."""

from collections.abc import Iterator

import torch

from scripts.terminal.console import size
from trfmoe_core.config import ModelConfig, Recipe, TrainingConfig
from trfmoe_core.errors import ConfigError
from trfmoe_core.training.memory import TrainingMemory, free_memory, training_memory

ACCURACY = 0.15
"""The estimate may be this much too high or too low, so only what is further above the free memory is refused."""


def needed_memory(recipe: Recipe, vocab_size: int, device: torch.device, ranks: int = 1) -> str:
    """Returns, in words, what training takes.

    Args:
        recipe: Of a run on this machine.
        vocab_size: The tokenizer's, padded.
        device: Where it trains.
        ranks: Processes that train together; on the CPU they share its memory.

    Raises:
        ConfigError: There is not enough memory; says what would fit.
    """
    needed = training_memory(recipe.model, recipe.training, vocab_size, device)
    share = 1 if device.type == "cuda" else ranks
    free, limit = free_memory(device)
    taken = size(share * needed.peak)
    processes = f" in {ranks} processes, each" if share > 1 else ""
    text = f"training takes about {taken} of memory ({_parts(needed)}{processes})"
    if share * needed.peak * (1 - ACCURACY) <= free:
        close = ", which may not be enough" if share * needed.peak > free else ""
        return f"{text}; {size(free)} are {limit}{close}"
    fitting = list(_fitting(recipe, vocab_size, device, free / share))
    if fitting:
        remedy = f"use {', or '.join(fitting)}"
    else:
        remedy = f"even one sequence at a time would take too much: lower {_sizes(recipe.model)}"
    raise ConfigError(f"not enough memory: {text}, and {size(free)} are {limit}; {remedy}")


def _parts(needed: TrainingMemory) -> str:
    weights = needed.weights + needed.gradients + needed.moments
    return f"{size(weights)} for weights, gradients and optimizer, {size(needed.activations)} for activations"


def _sizes(model: ModelConfig) -> str:
    sizes = {key: getattr(model, key) for key in ("context", "layers", "width", "experts", "expert_width")}
    return " or ".join(f"model.{key} ({value:,})" for key, value in sizes.items())


def _fitting(recipe: Recipe, vocab_size: int, device: torch.device, free: float) -> Iterator[str]:
    """Yields settings that train the same with less memory, and what they take."""
    training = recipe.training
    choices = (
        [training] if training.gradient_checkpointing else [training, _with(training, gradient_checkpointing=True)]
    )
    for choice in choices:
        sizes = [one for one in range(training.batch_size, 0, -1) if training.batch_size % one == 0]
        for batch_size in sizes:
            smaller = _with(
                choice, batch_size=batch_size, accumulation=training.accumulation * training.batch_size // batch_size
            )
            peak = training_memory(recipe.model, smaller, vocab_size, device).peak
            if peak <= free:
                changed = smaller.model_dump()
                settings = [
                    f"{key}={str(changed[key]).lower()}"
                    for key in ("gradient_checkpointing", "batch_size", "accumulation")
                    if changed[key] != getattr(training, key)
                ]
                yield f"{' '.join(f'--set training.{one}' for one in settings)} ({size(peak)})"
                break


def _with(training: TrainingConfig, **changes: int) -> TrainingConfig:
    return training.model_copy(update=changes)
