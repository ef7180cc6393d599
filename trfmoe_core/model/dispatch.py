"""Sends tokens to their experts and back, and multiplies each expert's rows by that expert's weights.

N = tokens, K = experts a token, S = N * K slots sorted by expert, E = experts at hand, D = input width,
G = output width. Slots of experts that are not at hand have the number E and come last.

Nothing here adds with atomics or in an order that varies: equal inputs give equal bits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as nnf
from torch import Tensor

from trfmoe_core.model.memory import reused
from trfmoe_core.model.products import multiply_rows, sum_outer_products

Backend = Literal["loop", "native", "naive"]


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
    """0 and then `ends_E` as Python numbers; on CUDA None, because reading them would wait for the device."""
    complete: bool = True
    """Whether every slot has its expert at hand; else the last rows belong to none and come out as zeros."""

    @property
    def counts_E(self) -> Tensor:
        """Slots of each expert, int64."""
        return torch.diff(self.ends_E, prepend=self.ends_E.new_zeros(1)).long()


def plan_dispatch(choice_NK: Tensor, num_experts: int, *, complete: bool = True) -> Dispatch:
    """Returns the dispatch for the experts that each token chose, each 0..E-1, or E unless it is to be `complete`."""
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
    """Returns the rows (S, D) in sorted order; its gradient sums a token's K slots in their order."""
    rows_SD: Tensor = _ToExperts.apply(x_ND, dispatch.token_S, dispatch.inverse_NK)  # type: ignore[no-untyped-call]
    return rows_SD


def from_experts(y_SD: Tensor, weight_NK: Tensor, dispatch: Dispatch) -> Tensor:
    """Returns (N, D): each token's K expert outputs, weighted and summed in the order of its choices."""
    out_ND: Tensor = _FromExperts.apply(y_SD, weight_NK, dispatch.order_S, dispatch.token_S, dispatch.inverse_NK)  # type: ignore[no-untyped-call]
    return out_ND


def grouped_multiply(
    x_SD: Tensor,
    w_EGD: Tensor,
    dispatch: Dispatch,
    backend: Backend | None = None,
    frozen_EGD: Tensor | None = None,
) -> Tensor:
    """Returns (S, G): every sorted row times the transposed weights of its expert, zeros where it is not at hand.

    Args:
        backend: `loop` (a matrix product an expert, any type), `native` (torch's grouped kernel for CUDA bfloat16:
            does not wait for the device), `naive` (the reference for tests); None takes the fastest that applies.
        frozen_EGD: the last experts, whose weights get no gradient; `w_EGD` holds the first ones then.
    """
    frozen_EGD = None if frozen_EGD is None else frozen_EGD.to(x_SD.dtype)
    return _MULTIPLY[backend or _fastest(x_SD, w_EGD)](x_SD, w_EGD.to(x_SD.dtype), frozen_EGD, dispatch)


def _fastest(x_SD: Tensor, w_EGD: Tensor) -> Backend:
    # The grouped kernel wants rows that begin at multiples of 16 bytes.
    aligned = w_EGD.shape[1] % 8 == 0 and w_EGD.shape[2] % 8 == 0
    return "native" if x_SD.is_cuda and x_SD.dtype == torch.bfloat16 and aligned else "loop"


def _native(x_SD: Tensor, w_EGD: Tensor, frozen_EGD: Tensor | None, dispatch: Dispatch) -> Tensor:
    multiply = getattr(nnf, "grouped_mm", None) or torch._grouped_mm
    if frozen_EGD is not None:
        w_EGD = torch.cat([w_EGD, frozen_EGD])
    if dispatch.complete:
        out_SG: Tensor = multiply(x_SD, w_EGD.transpose(1, 2), offs=dispatch.ends_E)
        return out_SG
    # The kernel leaves rows after the last expert as it finds them, in both directions.
    nobody_S1 = (torch.arange(len(x_SD), device=x_SD.device) >= dispatch.ends_E[-1]).unsqueeze(1)
    out_SG = multiply(x_SD.masked_fill(nobody_S1, 0.0), w_EGD.transpose(1, 2), offs=dispatch.ends_E)
    return out_SG.masked_fill(nobody_S1, 0.0)


def _loop(x_SD: Tensor, w_EGD: Tensor, frozen_EGD: Tensor | None, dispatch: Dispatch) -> Tensor:
    if torch.compiler.is_compiling():
        whole_EGD = w_EGD if frozen_EGD is None else torch.cat([w_EGD, frozen_EGD])
        compiled_SG: Tensor = _loop_op(x_SD, whole_EGD, dispatch.ends_E)
        return compiled_SG
    out_SG: Tensor = _LoopMultiply.apply(x_SD, w_EGD, frozen_EGD, _bounds(dispatch))  # type: ignore[no-untyped-call]
    return out_SG


def _naive(x_SD: Tensor, w_EGD: Tensor, frozen_EGD: Tensor | None, dispatch: Dispatch) -> Tensor:
    weights = [*w_EGD, *([] if frozen_EGD is None else frozen_EGD.detach())]
    bounds = _bounds(dispatch)
    rows = [x_SD[begin:end] @ w_GD.T for w_GD, (begin, end) in zip(weights, pairwise(bounds), strict=True)]
    return torch.cat([*rows, x_SD.new_zeros(len(x_SD) - bounds[-1], w_EGD.shape[1])])


def _bounds(dispatch: Dispatch) -> list[int]:
    return [0, *dispatch.ends_E.tolist()] if dispatch.bounds is None else dispatch.bounds


_MULTIPLY: dict[Backend, Callable[[Tensor, Tensor, Tensor | None, Dispatch], Tensor]] = {
    "loop": _loop,
    "native": _native,
    "naive": _naive,
}


class _ToExperts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, token_S: Tensor, inverse_NK: Tensor) -> Tensor:
        ctx.save_for_backward(inverse_NK)
        if torch.compiler.is_compiling():
            return x_ND.index_select(0, token_S)
        rows_SD = reused((len(token_S), x_ND.shape[1]), x_ND)
        return torch.index_select(x_ND, 0, token_S, out=rows_SD)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (inverse_NK,) = ctx.saved_tensors
        grad_ND = grads[0].index_select(0, inverse_NK[:, 0])
        for k in range(1, inverse_NK.shape[1]):
            grad_ND += grads[0].index_select(0, inverse_NK[:, k])
        return grad_ND, None, None


class _FromExperts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, y_SD: Tensor, weight_NK: Tensor, order_S: Tensor, token_S: Tensor, inverse_NK: Tensor
    ) -> Tensor:
        ctx.save_for_backward(y_SD, weight_NK, order_S, token_S, inverse_NK)
        scale_NK = weight_NK.to(y_SD.dtype)
        out_ND = y_SD.index_select(0, inverse_NK[:, 0]).mul_(scale_NK[:, :1])
        for k in range(1, inverse_NK.shape[1]):
            out_ND += y_SD.index_select(0, inverse_NK[:, k]).mul_(scale_NK[:, k : k + 1])
        return out_ND

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        y_SD, weight_NK, order_S, token_S, inverse_NK = ctx.saved_tensors
        grad_SD = grads[0].index_select(0, token_S)
        grad_weight_S = torch.linalg.vecdot(grad_SD, y_SD)
        grad_weight_NK = grad_weight_S.index_select(0, inverse_NK.view(-1)).view_as(inverse_NK).to(weight_NK.dtype)
        scale_S = weight_NK.view(-1).index_select(0, order_S).to(grad_SD.dtype)
        return grad_SD.mul_(scale_S.unsqueeze(1)), grad_weight_NK, None, None, None


class _LoopMultiply(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_SD: Tensor, w_EGD: Tensor, frozen_EGD: Tensor | None, bounds: list[int]) -> Tensor:
        ctx.save_for_backward(x_SD, w_EGD, frozen_EGD)
        ctx.bounds = bounds
        return _loop_forward(x_SD, _matrices(w_EGD, frozen_EGD), bounds)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x_SD, w_EGD, frozen_EGD = ctx.saved_tensors
        grad_SG = grads[0].contiguous()
        grad_x_SD = _loop_grad_x(grad_SG, x_SD, _matrices(w_EGD, frozen_EGD), ctx.bounds)
        grad_w_EGD = _loop_grad_w(grad_SG, x_SD, w_EGD, ctx.bounds) if ctx.needs_input_grad[1] else None
        return grad_x_SD if ctx.needs_input_grad[0] else None, grad_w_EGD, None, None


def _matrices(w_EGD: Tensor, frozen_EGD: Tensor | None) -> list[Tensor]:
    return [*w_EGD, *(() if frozen_EGD is None else frozen_EGD)]


def _loop_forward(x_SD: Tensor, matrices: list[Tensor], bounds: list[int]) -> Tensor:
    out_SG = reused((len(x_SD), matrices[0].shape[0]), x_SD)
    for w_GD, (begin, end) in zip(matrices, pairwise(bounds), strict=True):
        multiply_rows(x_SD, w_GD, begin, end, out_SG)
    out_SG[bounds[-1] :] = 0.0
    return out_SG


def _loop_grad_x(grad_SG: Tensor, x_SD: Tensor, matrices: list[Tensor], bounds: list[int]) -> Tensor:
    grad_x_SD = reused(tuple(x_SD.shape), x_SD)
    for w_GD, (begin, end) in zip(matrices, pairwise(bounds), strict=True):
        multiply_rows(grad_SG, w_GD.T, begin, end, grad_x_SD)
    grad_x_SD[bounds[-1] :] = 0.0
    return grad_x_SD


def _loop_grad_w(grad_SG: Tensor, x_SD: Tensor, w_EGD: Tensor, bounds: list[int]) -> Tensor:
    grad_w_EGD = reused(tuple(w_EGD.shape), w_EGD)
    for e in range(len(w_EGD)):
        sum_outer_products(grad_SG, x_SD, bounds[e], bounds[e + 1], grad_w_EGD[e])
    return grad_w_EGD


@torch.library.custom_op("trfmoe::grouped", mutates_args=())
def _loop_op(x_SD: Tensor, w_EGD: Tensor, ends_E: Tensor) -> Tensor:
    """The loop as one operation that a compiler does not look into: its bounds differ from step to step."""
    return _loop_forward(x_SD, list(w_EGD), [0, *ends_E.tolist()])


@torch.library.custom_op("trfmoe::grouped_backward", mutates_args=())
def _loop_backward_op(grad_SG: Tensor, x_SD: Tensor, w_EGD: Tensor, ends_E: Tensor) -> tuple[Tensor, Tensor]:
    bounds = [0, *ends_E.tolist()]
    return _loop_grad_x(grad_SG, x_SD, list(w_EGD), bounds), _loop_grad_w(grad_SG, x_SD, w_EGD, bounds)


@_loop_op.register_fake
def _(x_SD: Tensor, w_EGD: Tensor, ends_E: Tensor) -> Tensor:
    return x_SD.new_empty(x_SD.shape[0], w_EGD.shape[1])


@_loop_backward_op.register_fake
def _(grad_SG: Tensor, x_SD: Tensor, w_EGD: Tensor, ends_E: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x_SD), torch.empty_like(w_EGD)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad_SG: Tensor) -> tuple[Tensor, Tensor, None]:
    return *_loop_backward_op(grad_SG.contiguous(), *ctx.saved_tensors), None


_loop_op.register_autograd(_backward, setup_context=_save)
