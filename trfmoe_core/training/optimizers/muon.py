"""Muon: momentum whose matrices are made orthogonal (Jordan et al. 2024, kellerjordan.github.io/posts/muon).

The scale of an update is that of AdamW's (Moonlight, arXiv 2502.16982), so AdamW's learning rates carry over.
`torch.optim.Muon` takes only two-dimensional parameters and one matrix at a time, so it cannot treat the experts of a
stack, or the queries, keys and values of one fused projection, as the separate matrices that they are.

N = matrices of one shape, R = rows, C = columns.
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from trfmoe_core.config.training import TrainingConfig
from trfmoe_core.training.optimizers.adamw import MOMENTS, update_by_adamw
from trfmoe_core.training.optimizers.base import OPTIMIZERS, STEP, BlockOptimizer, Unit
from trfmoe_core.training.optimizers.largest_step import LargestStep, adamw_largest_step

MOMENTUM = "momentum"
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration: singular values in (0, 1] end between about 0.7 and 1.2."""
ITERATIONS = 5
RMS = 0.2
"""Root mean square of AdamW's updates as measured by arXiv 2502.16982."""
LARGEST_SINGULAR_VALUE = 1.2637
"""Of what the iteration returns. In exact arithmetic the polynomial maps [0, 1] into [0, 1.2024] and this interval into
itself. It also maps [0, 1.2637] into itself, up to its fixed point, so rounding errors below 5% do not build up."""
_TINY = 1e-7


@OPTIMIZERS.register("muon")
class Muon(BlockOptimizer):
    """Muon for hidden matrices (attention and every single expert's), AdamW for embedding, head, router and norms."""

    def moment_names(self, unit: Unit) -> tuple[str, ...]:
        """Returns one moment for a hidden matrix, AdamW's two for everything else."""
        return (MOMENTUM,) if unit.rows else MOMENTS

    @classmethod
    def largest_step(
        cls, shape: Sequence[int], rows: Sequence[int], config: TrainingConfig, updates: int
    ) -> LargestStep:
        """Returns the limit of a hidden matrix's singular values, and AdamW's for everything else."""
        if not rows:
            return adamw_largest_step(config, updates)
        largest = LARGEST_SINGULAR_VALUE * RMS * max(math.sqrt(max(count, shape[-1])) for count in rows)
        return LargestStep(value=largest, spectral=largest)

    def update(self, units: Sequence[Unit], grads: Sequence[Tensor], learning_rate: float) -> None:
        """Changes the values and the moments of some tensors."""
        pairs = list(zip(units, grads, strict=True))
        others = [(unit, grad) for unit, grad in pairs if not unit.rows]
        update_by_adamw([unit for unit, _ in others], [grad for _, grad in others], learning_rate, self.config)
        hidden = [(unit, grad) for unit, grad in pairs if unit.rows]
        self._update_matrices([unit for unit, _ in hidden], [grad for _, grad in hidden], learning_rate)

    def _update_matrices(self, units: Sequence[Unit], grads: Sequence[Tensor], learning_rate: float) -> None:
        if not units:
            return
        beta = self.config.muon_momentum
        moments = [cast(dict[str, Tensor], unit.moments) for unit in units]
        averages = [entry[MOMENTUM] for entry in moments]
        torch._foreach_lerp_(averages, list(grads), 1.0 - beta)
        directions = torch._foreach_lerp(list(grads), averages, beta)  # Nesterov's form
        torch._foreach_add_([entry[STEP] for entry in moments], 1.0)
        torch._foreach_mul_([unit.values for unit in units], 1.0 - learning_rate * self.config.weight_decay)
        by_shape: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
        for unit, direction in zip(units, directions, strict=True):
            rows = list(unit.rows)
            parts = zip(torch.split(unit.values, rows), torch.split(direction, rows), strict=True)
            for values, part in parts:
                by_shape.setdefault((part.shape[0], part.shape[1]), []).append((values, part))
        for shape, matrices in by_shape.items():
            scale = -learning_rate * RMS * math.sqrt(max(shape))
            orthogonal_NRC = orthogonalised(torch.stack([part for _, part in matrices]))
            torch._foreach_add_([values for values, _ in matrices], list(orthogonal_NRC.unbind()), alpha=scale)


def orthogonalised(x_NRC: Tensor) -> Tensor:
    """Returns for each matrix, roughly, the nearest one whose singular values are all 1. Zeros stay zeros.

    Newton and Schulz's iteration runs in float32 on the CPU, so that the replicas of all nodes compare, and in bfloat16
    on CUDA, as its authors run it. The result is float32.
    """
    a, b, c = COEFFICIENTS
    wide_NRC = x_NRC.mT if x_NRC.shape[1] > x_NRC.shape[2] else x_NRC
    norms_N11 = torch.linalg.matrix_norm(wide_NRC, keepdim=True)
    y_NRC = (wide_NRC / (norms_N11 + _TINY)).to(torch.bfloat16 if x_NRC.is_cuda else torch.float32)
    for _ in range(ITERATIONS):
        gram_NRR = y_NRC @ y_NRC.mT
        polynomial_NRR = torch.baddbmm(gram_NRR, gram_NRR, gram_NRR, beta=b, alpha=c)
        y_NRC = torch.baddbmm(y_NRC, polynomial_NRR, y_NRC, beta=a)
    result_NRC: Tensor = y_NRC.float()
    return result_NRC.mT if x_NRC.shape[1] > x_NRC.shape[2] else result_NRC
