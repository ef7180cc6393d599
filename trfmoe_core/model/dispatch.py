"""Sends tokens to their experts and back.

N = tokens, K = experts a token, S = N * K slots sorted by expert, E = experts on this node, D = width. A slot whose
expert is not on this node has the number E and comes last.

No operation uses atomic adds or a varying order, so equal inputs give equal bits.
"""

from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Dispatch:
    """Which slot goes where. Slot `n * K + k` is token n's k-th choice."""

    order_S: Tensor
    """Slots sorted by expert; within an expert by token."""
    token_S: Tensor
    """The token of each sorted slot."""
    inverse_NK: Tensor
    """The sorted position of each slot."""
    ends_E: Tensor
    """int32, one past each expert's last sorted position."""
    bounds: list[int] | None
    """0 and then `ends_E` as Python numbers; None on CUDA, because reading them would wait for the device."""
    complete: bool = True
    """Whether the expert of every slot is on this node; if not, the output rows of the last slots are zeros."""

    @property
    def counts_E(self) -> Tensor:
        """Slots of each expert, int64."""
        return torch.diff(self.ends_E, prepend=self.ends_E.new_zeros(1)).long()


def plan_dispatch(choice_NK: Tensor, num_experts: int, *, complete: bool = True) -> Dispatch:
    """Returns the dispatch for the experts that each token chose.

    Args:
        choice_NK: int64 numbers 0..E-1; also E where the dispatch is not `complete`.
        num_experts: E.
        complete: See `Dispatch`.
    """
    num_tokens, top_k = choice_NK.shape
    sorted_S, order_S = torch.sort(choice_NK.reshape(-1), stable=True)
    inverse_S = torch.empty_like(order_S)
    inverse_S.scatter_(0, order_S, torch.arange(order_S.numel(), device=order_S.device))
    experts_E = torch.arange(num_experts, device=choice_NK.device)
    ends_E = torch.searchsorted(sorted_S, experts_E, right=True, out_int32=True)
    bounds = [0, *ends_E.tolist()] if choice_NK.device.type == "cpu" and not torch.compiler.is_compiling() else None
    token_S = torch.div(order_S, top_k, rounding_mode="floor")
    return Dispatch(order_S, token_S, inverse_S.view(num_tokens, top_k), ends_E, bounds, complete)


def to_experts(x_ND: Tensor, dispatch: Dispatch) -> Tensor:
    """Returns the rows (S, D) in sorted order."""
    return _gather_rows(x_ND, dispatch.token_S, dispatch.inverse_NK)


def from_experts(y_SD: Tensor, weight_NK: Tensor, dispatch: Dispatch) -> Tensor:
    """Returns (N, D): each token's K expert outputs, weighted and summed in the order of its choices."""
    rows_SD = _gather_rows(y_SD, dispatch.inverse_NK.view(-1), dispatch.order_S.unsqueeze(1))
    weighted_NKD = rows_SD.view(*weight_NK.shape, -1) * weight_NK.to(y_SD.dtype).unsqueeze(-1)
    # Not `sum`, whose order of additions depends on the width.
    return reduce(torch.add, weighted_NKD.unbind(dim=1))


def _gather_rows(x_ND: Tensor, row_S: Tensor, copies_NK: Tensor) -> Tensor:
    """Returns `x[row_S]`; `copies_NK` holds for each row of `x` the K positions at which it stands in the result."""
    rows_SD: Tensor = _GatherRows.apply(x_ND, row_S, copies_NK)  # type: ignore[no-untyped-call]
    return rows_SD


class _GatherRows(torch.autograd.Function):
    """Sums the gradients of a row's copies in their order; torch's own gradient adds with atomics on CUDA."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, row_S: Tensor, copies_NK: Tensor) -> Tensor:
        ctx.save_for_backward(copies_NK)
        return x_ND.index_select(0, row_S)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (copies_NK,) = ctx.saved_tensors
        grad_ND = grads[0].index_select(0, copies_NK[:, 0])
        for k in range(1, copies_NK.shape[1]):
            grad_ND += grads[0].index_select(0, copies_NK[:, k])
        return grad_ND, None, None
