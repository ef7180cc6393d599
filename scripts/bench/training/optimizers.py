"""The optimizers' share of a training step at the demo's shape; `trfmoe bench model` shows it."""

import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch

from trfmoe_core.config import ModelConfig, TrainingConfig
from trfmoe_core.model.transformer import build_model
from trfmoe_core.training.optimizers.base import OPTIMIZERS

DEMO = ModelConfig.model_validate(
    {"layers": 4, "width": 128, "heads": 4, "experts": 8, "top_k": 2, "expert_width": 176, "context": 128}
)
BATCH, VOCAB = 8, 320
NAMES = ("adamw", "muon")


def bench_optimizers(rounds: int) -> list[dict[str, Any]]:
    """Returns a row for each optimizer: process CPU time in float32 and one thread, the optimizers taking turns.

    `share_of_step` is the optimizer's part of gradients and update together, both the median over the rounds. Muon's
    iteration runs in the type that the processor multiplies fastest, see `product_type`.

    Args:
        rounds: Steps of each optimizer that count, after two that do not.
    """
    torch.set_num_threads(1)
    model = build_model(DEMO, VOCAB, seed=0)
    tokens = torch.randint(0, VOCAB, (BATCH, DEMO.context + 1), generator=torch.Generator().manual_seed(0))
    parameters, found = dict(model.named_parameters()), {}
    for name in NAMES:
        config = TrainingConfig.model_validate({"optimizer": name})
        found[name] = OPTIMIZERS.find(name)(parameters, config, model.by_expert, model.hidden_matrices())

    def gradients() -> None:
        model(tokens[:, :-1], tokens[:, 1:]).loss.backward()

    gradients_ms: dict[str, list[float]] = {name: [] for name in NAMES}
    update_ms: dict[str, list[float]] = {name: [] for name in NAMES}
    for number in range(rounds + 2):
        for name, optimizer in found.items():
            took = _ms(gradients)
            updated = _ms(partial(optimizer.step, 1e-4))
            if number >= 2:
                gradients_ms[name].append(took)
                update_ms[name].append(updated)
    rows = []
    for name in NAMES:
        before, update = median(gradients_ms[name]), median(update_ms[name])
        rows.append(
            {
                "optimizer": name,
                "gradients_ms": round(before, 1),
                "update_ms": round(update, 1),
                "share_of_step": round(update / (before + update), 3),
            }
        )
    return rows


def _ms(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return 1000 * (time.process_time() - started)
