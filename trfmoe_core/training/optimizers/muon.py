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
COEFFICIENTS = (
    (8.219288, -23.337466, 16.626575),
    (3.964138, -2.837714, 0.515825),
    (3.436834, -2.475155, 0.476160),
    (2.490116, -1.834275, 0.436835),
)
"""Of four quintic iterations, made as Polar Express makes them (arXiv 2505.16932) for singular values from 0.003 to 1:
they end between 0.76 and 1.2, and smaller ones are multiplied by 279. All but the last are scaled for values up to
`SAFETY`, since products in bfloat16 are rounded. With three iterations a model of the demo's size was 0.017 nats worse
after 250 steps; a fifth gained nothing.
"""
SAFETY = 1.02
RMS = 0.2
"""Root mean square of AdamW's updates as measured by arXiv 2502.16982."""
TOGETHER = 2**19
"""Numbers of matrices of one shape that are worked on together, so that they fit into a processor's cache."""
LARGEST_SINGULAR_VALUE = 1.36
"""Of what the iterations return. In exact arithmetic they map [0, 1] into [0, 1.199]; if every iteration errs by up to
2%, five times the rounding of bfloat16, into [0, 1.356]."""
_TINY = 1e-30


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
        by_shape: dict[torch.Size, list[tuple[Tensor, Tensor, Tensor]]] = {}
        for unit, grad in zip(units, grads, strict=True):
            moments = cast(dict[str, Tensor], unit.moments)
            moments[STEP] += 1.0
            values, averages, parts = (torch.split(t, list(unit.rows)) for t in (unit.values, moments[MOMENTUM], grad))
            for matrix in zip(values, averages, parts, strict=True):
                by_shape.setdefault(matrix[0].shape, []).append(matrix)
        for shape, matrices in by_shape.items():
            size = max(1, TOGETHER // shape.numel())
            for first in range(0, len(matrices), size):
                self._update_some(matrices[first : first + size], learning_rate)

    def _update_some(self, matrices: Sequence[tuple[Tensor, Tensor, Tensor]], learning_rate: float) -> None:
        """Changes matrices of one shape, each given with its momentum and its gradient."""
        values, averages, grads = (list(tensors) for tensors in zip(*matrices, strict=True))
        beta, (rows, columns) = self.config.muon_momentum, values[0].shape
        torch._foreach_lerp_(averages, grads, 1.0 - beta)
        directions = list(torch._foreach_lerp(grads, averages, beta))  # Nesterov's form
        if rows < columns:
            directions, values = [matrix.T for matrix in directions], [matrix.T for matrix in values]
        update_NRC = orthogonalised(torch.stack(directions)).mul_(-learning_rate * RMS * math.sqrt(max(rows, columns)))
        torch._foreach_mul_(values, 1.0 - learning_rate * self.config.weight_decay)
        torch._foreach_add_(values, list(update_NRC.unbind()))


def orthogonalised(x_NRC: Tensor) -> Tensor:
    """Returns for each matrix, roughly, the nearest one whose singular values are all 1. Zeros stay zeros.

    Newton and Schulz's iteration, with the number type of `product_type`.

    Args:
        x_NRC: float32 matrices with at least as many rows as columns.

    Returns:
        float32.
    """
    norms_N11 = torch.linalg.matrix_norm(x_NRC, keepdim=True) + _TINY
    y_NRC = (x_NRC / norms_N11).to(product_type(x_NRC.device))
    gram_NCC = y_NRC.mT @ y_NRC
    # The fourth root of the sum of the fourth powers of the singular values: no less than the largest of them, and
    # much less than the norm, which is the root of the sum of their squares. So fewer iterations are needed.
    bound_N11 = torch.linalg.matrix_norm(gram_NCC.float(), keepdim=True) + _TINY
    y_NRC, gram_NCC = y_NRC * bound_N11.rsqrt().to(y_NRC.dtype), gram_NCC * bound_N11.reciprocal().to(y_NRC.dtype)
    for number, (a, b, c) in enumerate(COEFFICIENTS):
        if number:
            gram_NCC = y_NRC.mT @ y_NRC
        polynomial_NCC = torch.baddbmm(gram_NCC, gram_NCC, gram_NCC, beta=b, alpha=c)
        y_NRC = torch.baddbmm(y_NRC, y_NRC, polynomial_NCC, beta=a)
    result_NRC: Tensor = y_NRC.float()
    return result_NRC


def product_type(device: torch.device) -> torch.dtype:
    """Returns the type of the iteration's numbers: bfloat16 where the device multiplies it natively, else float32."""
    native = device.type == "cuda" or (device.type == "cpu" and torch.cpu._is_avx512_bf16_supported())
    return torch.bfloat16 if native else torch.float32
