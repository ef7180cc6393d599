"""Matrix products of the model in float32 on a CPU: by oneDNN where that is faster than what torch takes.

torch multiplies float32 matrices with MKL, which keeps to AVX2 on processors that are not Intel's; oneDNN, which torch
brings along too, uses AVX-512 there: 2.2 times the speed on an AMD EPYC. The numbers are float32 in both cases.

M = rows, N = output width, K = input width, S = rows of several matrices, R = rows of one of them, widened.
"""

import platform
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor

ROW_STEP = 16
"""oneDNN compiles a kernel for every new shape, so numbers of rows that differ each time are rounded up to this."""

FEW_ROWS = 4
"""With fewer rows MKL takes another kernel, and a row's result would depend on how many there are."""


def _prefers_onednn() -> bool:
    if platform.machine() not in ("x86_64", "AMD64") or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    try:
        return "GenuineIntel" not in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


ONEDNN = _prefers_onednn()
"""Whether oneDNN is the faster one here."""


def uses_fast_products(*tensors: Tensor) -> bool:
    """Whether `fast_product` takes these and is worth it."""
    return ONEDNN and all(
        tensor.device.type == "cpu" and tensor.dtype == torch.float32 and tensor.numel() for tensor in tensors
    )


def fast_product(x_MK: Tensor, w_NK: Tensor) -> Tensor:
    """Returns `x @ w.T` by oneDNN, without gradient; either may be the transpose of a contiguous matrix."""
    out_MN: Tensor = torch.ops.mkldnn._linear_pointwise(x_MK, w_NK, None, "none", [], "")
    return out_MN


def linear(x: Tensor, w_NK: Tensor) -> Tensor:
    """Returns `x @ w.T` for any leading dimensions, with gradient."""
    if uses_fast_products(x, w_NK):
        if torch.compiler.is_compiling():
            out: Tensor = _linear_op(x.reshape(-1, x.shape[-1]), w_NK)
        else:
            out = _Linear.apply(x.reshape(-1, x.shape[-1]), w_NK)  # type: ignore[no-untyped-call]
        return out.view(*x.shape[:-1], w_NK.shape[0])
    return nnf.linear(x, w_NK)


def weight_gradient(grad_MN: Tensor, x_MK: Tensor) -> Tensor:
    """Returns `grad.T @ x` by oneDNN, (N, K) with the smaller of the two transposed in memory first."""
    rows, outputs = grad_MN.shape
    inputs = x_MK.shape[1]
    if inputs * (rows + outputs) < outputs * rows:
        return fast_product(x_MK.t(), grad_MN.t()).t().contiguous()
    return fast_product(grad_MN.t(), x_MK.t())


def multiply_rows(x_SK: Tensor, w_NK: Tensor, begin: int, end: int, out_SN: Tensor) -> None:
    """Writes `x @ w.T` of the rows begin..end; a row's result does not depend on how many there are."""
    if begin == end:
        return
    if uses_fast_products(x_SK, w_NK):
        first, last = _widened(begin, end, len(x_SK))
        out_SN[begin:end] = fast_product(x_SK[first:last], w_NK)[begin - first : end - first]
    elif end - begin < FEW_ROWS:
        out_SN[begin:end] = nnf.pad(x_SK[begin:end], (0, 0, 0, FEW_ROWS)).mm(w_NK.T)[: end - begin]
    else:
        torch.mm(x_SK[begin:end], w_NK.T, out=out_SN[begin:end])


def sum_outer_products(grad_SN: Tensor, x_SK: Tensor, begin: int, end: int, out_NK: Tensor) -> None:
    """Writes `grad.T @ x` of the rows begin..end."""
    if begin == end:
        out_NK.zero_()
    elif uses_fast_products(grad_SN, x_SK):
        first, last = _widened(begin, end, len(x_SK))
        x_RK = x_SK[first:last]
        if last - first > end - begin:
            # Rows of others, which stand there only for a common size, count with zeros.
            x_RK = x_RK.clone()
            x_RK[: begin - first] = 0.0
            x_RK[end - first :] = 0.0
        out_NK.copy_(fast_product(grad_SN[first:last].t(), x_RK.t()))
    else:
        torch.mm(grad_SN[begin:end].T, x_SK[begin:end], out=out_NK)


def _widened(begin: int, end: int, size: int) -> tuple[int, int]:
    rows = min(size, -(-(end - begin) // ROW_STEP) * ROW_STEP)
    first = min(begin, size - rows)
    return first, first + rows


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_MK: Tensor, w_NK: Tensor) -> Tensor:
        ctx.save_for_backward(x_MK, w_NK)
        return fast_product(x_MK, w_NK)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x_MK, w_NK = ctx.saved_tensors
        grad_MN = grads[0].contiguous()
        grad_x = fast_product(grad_MN, w_NK.t()) if ctx.needs_input_grad[0] else None
        grad_w = weight_gradient(grad_MN, x_MK) if ctx.needs_input_grad[1] else None
        return grad_x, grad_w


@torch.library.custom_op("trfmoe::linear", mutates_args=())
def _linear_op(x_MK: Tensor, w_NK: Tensor) -> Tensor:
    return fast_product(x_MK, w_NK)


@torch.library.custom_op("trfmoe::linear_backward", mutates_args=())
def _linear_backward_op(grad_MN: Tensor, x_MK: Tensor, w_NK: Tensor) -> tuple[Tensor, Tensor]:
    return fast_product(grad_MN, w_NK.t()), weight_gradient(grad_MN, x_MK)


@_linear_op.register_fake
def _(x_MK: Tensor, w_NK: Tensor) -> Tensor:
    return x_MK.new_empty(x_MK.shape[0], w_NK.shape[0])


@_linear_backward_op.register_fake
def _(grad_MN: Tensor, x_MK: Tensor, w_NK: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x_MK), torch.empty_like(w_NK)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad_MN: Tensor) -> tuple[Tensor, Tensor]:
    grads: tuple[Tensor, Tensor] = _linear_backward_op(grad_MN.contiguous(), *ctx.saved_tensors)
    return grads


_linear_op.register_autograd(_backward, setup_context=_save)
