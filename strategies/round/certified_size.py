"""Refuses updates that no training by the recipe can make, because they are too large. docs/voting.md has the proofs.

The optimizer limits every step, whatever the gradients are, so the learning rates of a round limit its updates. An
honest node is never refused. What a node sends is compared with the recipe alone, so no other node can cause a refusal.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from strategies.exchange.messages import TrainRequest
from trfmoe_core.blocks import BlockLayout, Slot
from trfmoe_core.config import Recipe
from trfmoe_core.model.transformer import hidden_matrices
from trfmoe_core.quantize import LEVELS
from trfmoe_core.training.optimizers.base import OPTIMIZERS
from trfmoe_core.training.optimizers.largest_step import LargestStep
from trfmoe_core.training.schedule import learning_rate
from trfmoe_core.wire import Replica

ARITHMETIC = 1e-3
"""Relative error of a step in float32. The true one is about a thousandth of this."""

ROUNDING = 2.0**-22
"""Share of a weight by which one step may round it: two float32 operations, and as much again in reserve."""

BFLOAT16 = 2.0**-8
"""Relative error of rounding to bfloat16."""

PIECE = 1 << 20
"""Values that are looked at at a time."""

POWER_STEPS = 3
"""Power iterations for a lower limit of a matrix's largest singular value."""


@dataclass(frozen=True)
class _Limit:
    value: float
    """Of every value, without decay and rounding."""
    spectral: float | None
    """Of every separate matrix's singular values, likewise."""
    share: float
    """Of a weight, that decay and arithmetic change at most."""
    error: float
    """Of a value in int8 or int4, from this round and an earlier one."""
    rounding: float
    """Relative error of a value in bfloat16."""


_Found = tuple[str, float, float] | None
"""What is too large, its size and the limit."""


class CertifiedSize:
    """The largest updates that a round's training can make.

    Args:
        recipe: The run.
        layout: The model's blocks.
    """

    def __init__(self, recipe: Recipe, layout: BlockLayout) -> None:
        self._recipe, self._layout = recipe, layout
        self._optimizer = OPTIMIZERS.find(recipe.training.optimizer)
        self._matrices = hidden_matrices(recipe.model)

    def excess(self, updates: Mapping[str, Replica], base: Mapping[str, Tensor], request: TrainRequest) -> str | None:
        """Returns which update is too large, where, its size and the limit; None if training can have made all.

        Reads the updates once, and the base where a value is above the limit without weight decay.

        Args:
            updates: Block -> update, flat, finite, as it travelled.
            base: Block -> weights that the round started from, flat. Those of the node may be rounded to bfloat16.
            request: What the node was asked for.
        """
        training, steps = self._recipe.training, request.steps
        first = self._recipe.rounds.steps_before(request.round)
        rates = sum(learning_rate(step, self._recipe.total_steps, training) for step in range(first, first + steps))
        for block, update in updates.items():
            for slot in self._layout.specs[block].slots:
                rows = self._matrices.get(slot.tensor, ())
                largest = self._optimizer.largest_step(slot.shape, rows, training, first + steps)
                if largest is None:
                    continue
                limit = self._limit(slot, largest, rates, request, base[block])
                if found := _value_beyond(update, base[block], slot, limit) or _matrix_beyond(
                    update, base[block], slot, rows, limit
                ):
                    what, size, most = found
                    return (
                        f"block {block!r}: {what} of {slot.tensor} is {size:.3g}, and no training by the recipe makes "
                        f"it larger than {most:.3g} in this round"
                    )
        return None

    def _limit(self, slot: Slot, largest: LargestStep, rates: float, request: TrainRequest, base: Tensor) -> _Limit:
        training, dtype = self._recipe.training, self._recipe.transport.updates
        share = self._share(slot, rates, request.steps)
        value = largest.value * rates * (1 + ARITHMETIC)
        spectral = None if largest.spectral is None else largest.spectral * rates * (1 + ARITHMETIC)
        error = 0.0
        if dtype in LEVELS:
            # What an earlier round lost in rounding comes with this one; then this one is rounded, row by row.
            # That round may have had more steps and higher rates than this one.
            weight = 2 * float(base[slot.offset : slot.offset + slot.numel].abs().max())
            steps = self._recipe.rounds.most_steps_until(request.round)
            highest = training.learning_rate * steps
            earlier = largest.value * highest + self._share(slot, highest, steps) * weight
            lost = 1.01 * earlier / (2 * LEVELS[dtype] - 1)
            error = lost + (value + share * weight + lost) / (2 * LEVELS[dtype])
        return _Limit(value, spectral, share, error, BFLOAT16 if dtype == "bfloat16" else 0.0)

    def _share(self, slot: Slot, rates: float, steps: int) -> float:
        """Returns the largest share of a weight that decay takes and rounding changes."""
        decay = self._recipe.training.weight_decay * rates * (len(slot.shape) >= 2)
        # The node's own weights may be larger than the coordinator's by a rounding to bfloat16.
        return (decay + ROUNDING * steps) * (1 + BFLOAT16)


def _value_beyond(update: Replica, base: Tensor, slot: Slot, limit: _Limit) -> _Found:
    most = (limit.value + limit.error) * (1 + limit.rounding)
    share = limit.share * (1 + limit.rounding)
    end = slot.offset + slot.numel
    for begin in range(slot.offset, end, PIECE):
        piece = slice(begin, min(begin + PIECE, end))
        sizes = update[piece].float().abs()
        if float(sizes.max()) > most:
            beyond = sizes - base[piece].float().abs().mul_(share)
            worst = int(beyond.argmax())
            if float(beyond[worst]) > most:
                return f"value {begin + worst - slot.offset}", float(sizes[worst]), most
    return None


def _matrix_beyond(update: Replica, base: Tensor, slot: Slot, rows: tuple[int, ...], limit: _Limit) -> _Found:
    if limit.spectral is None:
        return None
    where = slice(slot.offset, slot.offset + slot.numel)
    parts = zip(
        torch.split(update[where].float().view(slot.shape), list(rows)),
        torch.split(base[where].float().view(slot.shape), list(rows)),
        strict=True,
    )
    for number, (matrix, weights) in enumerate(parts):
        # Decay, rounding and quantization are limited in the Frobenius norm, which limits the spectral norm.
        around = limit.share * float(torch.linalg.vector_norm(weights)) + limit.error * sqrt(matrix.numel())
        norm = limit.spectral * sqrt(min(matrix.shape)) + around
        around += limit.rounding * norm
        for what, size, most in (
            ("norm", float(torch.linalg.vector_norm(matrix)), norm * (1 + limit.rounding)),
            ("largest singular value", _singular_value(matrix), limit.spectral + around),
        ):
            if size > most:
                return f"the {what} of matrix {number}", size, most
    return None


def _singular_value(matrix: Tensor) -> float:
    """Returns a lower limit of the largest singular value, by the power method from the longest row."""
    vector = matrix[int(torch.linalg.vector_norm(matrix, dim=1).argmax())]
    size = 0.0
    for _ in range(POWER_STEPS):
        length = float(torch.linalg.vector_norm(vector))
        if length == 0.0:
            return 0.0
        image = matrix @ (vector / length)
        size = float(torch.linalg.vector_norm(image))
        vector = matrix.mT @ image
    return size
