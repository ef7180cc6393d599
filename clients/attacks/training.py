"""Attacks that reach into the training: wrong targets, a crash half way, steps up the loss."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from flwr.app import Message
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from clients.attacks.base import Learner, Seen, message_attack, update_attack
from clients.attacks.outages import DrillCrashError
from trfmoe_core.blocks import BlockLayout, Blocks
from trfmoe_core.errors import ConfigError
from trfmoe_core.model.transformer import MoETransformer

ASCENT_STEPS = 8

Arguments = tuple[Any, ...]


class _Killed(BaseException):
    """Like SIGKILL: the client's own error handling must not see it."""


@message_attack("training", "trains on wrong targets")
def label_flip(answer: Callable[[], Message], seen: Seen) -> Message:
    """Returns the reply of a node whose every target is a wrong but common token.

    `target ^ 1` is a bijection of the tokens, since the vocabulary is padded to an even size.
    """

    def flip(model: MoETransformer, number: int, arguments: Arguments) -> Arguments:
        tokens_BT, targets_BT, *more = arguments
        mask_BT = more[0] if more else None
        flipped_BT = targets_BT ^ 1
        if mask_BT is not None:
            flipped_BT = torch.where(mask_BT, flipped_BT, targets_BT)
        return (tokens_BT, flipped_BT, *more)

    with before_each_pass(flip):
        return answer()


@message_attack("training", "crashes in the middle of its training")
def crash_during(answer: Callable[[], Message], seen: Seen) -> Message:
    """Trains half of the steps.

    Raises:
        DrillCrashError: Always.
    """

    def stop(model: MoETransformer, number: int, arguments: Arguments) -> Arguments:
        if number >= seen.steps // 2:
            raise _Killed
        return arguments

    with suppress(_Killed), before_each_pass(stop):
        answer()
    raise DrillCrashError(f"drill: this node crashes while it trains in round {seen.round}")


@update_attack("model", "climbs the loss for some steps and sends that, as long as its honest updates")
def ascent(own: Blocks, seen: Seen) -> Blocks:
    """Returns a few steps up the loss on the node's own text.

    Raises:
        ConfigError: Whoever plays the attack gives it no model.
    """
    learner = seen.learner
    if learner is None:
        raise ConfigError("drill.attack: ascent needs the node's model; play it on a node that trains on one device")
    values = learner.model.block_values()
    layout = BlockLayout.of(values)
    before = layout.gather(values, own)
    optimizer = torch.optim.Adam(learner.model.parameters(), lr=learner.learning_rate, maximize=True)
    optimizer.zero_grad(set_to_none=True)
    for _, arguments in zip(range(ASCENT_STEPS), learner.batches, strict=False):
        learner.model(*arguments).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    after = layout.gather(values, own)
    uphill = {block: after[block].sub_(before[block]) for block in own}
    factor = _length(own) / max(_length(uphill), 1e-30)
    return {block: update.mul_(factor) for block, update in uphill.items()}


@contextmanager
def recorded_learner(learning_rate: float) -> Iterator[Callable[[], Learner | None]]:
    """Yields a function that returns what was trained meanwhile, as it was before the first step.

    The function puts the starting weights back into the model: call it once the honest updates have been taken. It
    returns None if nothing was trained.
    """
    models: list[MoETransformer] = []
    batches: list[Arguments] = []
    start: Blocks = {}

    def record(model: MoETransformer, number: int, arguments: Arguments) -> Arguments:
        if number == 0:
            models.append(model)
            values = model.block_values()
            start.update(BlockLayout.of(values).gather(values))
        if number < ASCENT_STEPS:
            batches.append(tuple(part.cpu() if isinstance(part, torch.Tensor) else part for part in arguments))
        return arguments

    def learner() -> Learner | None:
        if not models:
            return None
        model = models[0].cpu()
        values = model.block_values()
        BlockLayout.of(values).scatter(start, values)
        return Learner(model=model, batches=batches, learning_rate=learning_rate)

    with before_each_pass(record):
        yield learner


@contextmanager
def before_each_pass(change: Callable[[MoETransformer, int, Arguments], Arguments]) -> Iterator[None]:
    """Calls `change` (model, number of the forward pass, its arguments) before each pass of a model that trains."""
    passes = 0

    def hook(module: nn.Module, arguments: Arguments) -> Arguments:
        nonlocal passes
        if not (isinstance(module, MoETransformer) and module.training):
            return arguments
        passes += 1
        return change(module, passes - 1, arguments)

    handle = register_module_forward_pre_hook(hook)  # type: ignore[arg-type]  # torch takes changed arguments too
    try:
        yield
    finally:
        handle.remove()


def _length(blocks: Blocks) -> float:
    return float(torch.stack([flat.norm() for flat in blocks.values()]).norm())
