"""How fast this machine trains a recipe's model: a few real steps of the real trainer."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt
import torch

from scripts.planning.federation import PlannedRun
from trfmoe_core.data.batches.held_out import EvaluationSet
from trfmoe_core.model.transformer import MoETransformer
from trfmoe_core.training.device import prepare_process
from trfmoe_core.training.evaluate import evaluate
from trfmoe_core.training.out_of_memory import peak_memory_bytes
from trfmoe_core.training.trainer import Trainer

if TYPE_CHECKING:
    from trfmoe_core.data.batches.stream import BatchStream

WARM_UP, STEPS = 1, 4
"""Optimizer steps: the first ones compile kernels and fill the allocator."""
EVALUATION_BATCHES = 2


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What was measured, in one process on one device."""

    tokens_per_s: float
    evaluation_tokens_per_s: float
    peak_memory_bytes: int
    """Of the process on the CPU, of torch on a GPU."""


class DrawnBatches:
    """Batches of tokens drawn at random, which take as long as text."""

    ignored_target = None

    def __init__(self, rows: int, context: int, vocab_size: int) -> None:
        self._shape, self._vocab_size = (rows, context + 1), vocab_size
        self._draw = np.random.default_rng(0)

    def next(self) -> npt.NDArray[np.int64]:
        """Returns the next batch, (rows, context + 1) int64."""
        return self._draw.integers(0, self._vocab_size, self._shape)


def measure_speed(run: PlannedRun) -> Speed:
    """Returns the speed of training and evaluation here, on random tokens.

    Raises:
        RunError: memory runs out; the message says what to lower.
    """
    recipe = run.recipe
    prepare_process(recipe.training)
    model = MoETransformer(recipe.model, run.vocab_size, run.local(), freeze=recipe.training.freeze)
    model.init_weights(torch.Generator().manual_seed(recipe.seed))
    trainer = Trainer(model, recipe.training, max(recipe.total_steps, WARM_UP + STEPS), run.device)
    rows, context = recipe.training.batch_size, recipe.model.context
    drawn = DrawnBatches(rows, context, run.vocab_size)
    stream = cast("BatchStream", drawn)  # of a stream the trainer uses what is here
    trainer.train(stream, WARM_UP)
    metrics = trainer.train(stream, STEPS)
    tokens = np.concatenate([drawn.next() for _ in range(EVALUATION_BATCHES)])
    windows = EvaluationSet(tokens=tokens, mask=np.ones_like(tokens[:, 1:], dtype=np.bool_), num_bytes=tokens.size)
    started = time.perf_counter()
    evaluate(trainer.model, windows, rows, run.device, trainer.precision)
    seconds = time.perf_counter() - started
    return Speed(
        tokens_per_s=metrics.tokens / metrics.seconds,
        evaluation_tokens_per_s=windows.mask.size / seconds,
        peak_memory_bytes=peak_memory_bytes(run.device),
    )
