"""The model's matrix products. Only this file knows oneDNN and the CPU's kernels for few rows.

torch multiplies float32 matrices with MKL, which keeps to AVX2 on processors that are not Intel's. oneDNN, which torch
brings along too, uses AVX-512 there. Measured on an AMD EPYC: a product is 2.2 times as fast, a whole training step at
width 256 is 1.6 times as fast and at the demo's 1.15 times. Both compute in float32.

torch multiplies bfloat16 matrices with oneDNN on every processor that has instructions for them. oneDNN compiles a
kernel for every new shape, which takes 0.2 ms, so experts' numbers of rows are rounded up to few sizes.

M = rows, N = output width, K = input width, S = rows sorted by expert, R = rows of one expert, rounded up.
"""

import platform
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor

ROW_STEP = 16
"""In float32 an expert's number of rows is rounded up to a multiple of this."""

SIZES_AN_OCTAVE = 16
"""In bfloat16 so many sizes lie between one power of two and the next, and at least `ROW_STEP` between two sizes."""

FEW_ROWS = 4
"""With fewer rows MKL takes another kernel, and a row's result would depend on how many rows there are."""


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
"""Whether oneDNN multiplies faster than MKL on this processor."""


def uses_onednn(*tensors: Tensor) -> bool:
    """Returns whether `onednn_product` takes these tensors and is faster."""
    return ONEDNN and all(
        tensor.device.type == "cpu" and tensor.dtype == torch.float32 and tensor.numel() for tensor in tensors
    )


def onednn_product(x_MK: Tensor, w_NK: Tensor) -> Tensor:
    """Returns `x @ w.T` without gradient; each may be the transpose of a contiguous matrix."""
    out_MN: Tensor = torch.ops.mkldnn._linear_pointwise(x_MK, w_NK, None, "none", [], "")
    return out_MN


def linear(x: Tensor, w_NK: Tensor) -> Tensor:
    """Returns `x @ w.T` for any leading dimensions, with gradient."""
    if not uses_onednn(x, w_NK):
        return nnf.linear(x, w_NK)
    out_MN: Tensor = _Linear.apply(x.reshape(-1, x.shape[-1]), w_NK)  # type: ignore[no-untyped-call]
    return out_MN.view(*x.shape[:-1], w_NK.shape[0])


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_MK: Tensor, w_NK: Tensor) -> Tensor:
        ctx.save_for_backward(x_MK, w_NK)
        return onednn_product(x_MK, w_NK)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x_MK, w_NK = ctx.saved_tensors
        grad_MN = grads[0].contiguous()
        grad_x_MK = onednn_product(grad_MN, w_NK.t()) if ctx.needs_input_grad[0] else None
        grad_w_NK = _weight_gradient(grad_MN, x_MK) if ctx.needs_input_grad[1] else None
        return grad_x_MK, grad_w_NK


def _weight_gradient(grad_MN: Tensor, x_MK: Tensor) -> Tensor:
    """Returns `grad.T @ x`. The order of the factors is the one that copies less: oneDNN copies a transposed one."""
    rows, outputs = grad_MN.shape
    inputs = x_MK.shape[1]
    if inputs * (rows + outputs) < outputs * rows:
        return onednn_product(x_MK.t(), grad_MN.t()).t().contiguous()
    return onednn_product(grad_MN.t(), x_MK.t())


def multiply_rows(x_SK: Tensor, w_NK: Tensor, begin: int, end: int, out_SN: Tensor) -> None:
    """Writes `x @ w.T` for the rows begin..end of `x`. The rows after `end` may be overwritten too.

    In float32 a row's result does not depend on how many rows there are.

    Args:
        x_SK: All rows.
        w_NK: One expert's matrix, or the transpose of one.
        begin: The expert's first row.
        end: One past its last row.
        out_SN: Where the products of these rows are written.
    """
    if begin == end:
        return
    if uses_onednn(x_SK, w_NK):
        first, last = _rounded_up(begin, end, len(x_SK), ROW_STEP)
        out_SN[begin:end] = onednn_product(x_SK[first:last], w_NK)[begin - first : end - first]
    elif _is_bfloat16(x_SK):
        first, last = _rounded_up(begin, end, len(x_SK), _step(end - begin))
        if first == begin:
            torch.mm(x_SK[first:last], w_NK.T, out=out_SN[first:last])
        else:
            out_SN[begin:end] = x_SK[first:last].mm(w_NK.T)[begin - first : end - first]
    elif end - begin < FEW_ROWS:
        out_SN[begin:end] = nnf.pad(x_SK[begin:end], (0, 0, 0, FEW_ROWS)).mm(w_NK.T)[: end - begin]
    else:
        torch.mm(x_SK[begin:end], w_NK.T, out=out_SN[begin:end])


def sum_outer_products(grad_SN: Tensor, x_SK: Tensor, begin: int, end: int, out_NK: Tensor) -> None:
    """Writes `grad.T @ x` over the rows begin..end: the gradient of one expert's matrix.

    Args:
        grad_SN: Gradients of all output rows.
        x_SK: All input rows.
        begin: The expert's first row.
        end: One past its last row.
        out_NK: Where the gradient is written, also if it is float32 and the rows are not; zeros if the expert has no
            rows.
    """
    if begin == end:
        out_NK.zero_()
    elif uses_onednn(grad_SN, x_SK):
        first, last = _rounded_up(begin, end, len(x_SK), ROW_STEP)
        x_RK = _others_zeroed(x_SK, first, begin, end, last)
        out_NK.copy_(onednn_product(grad_SN[first:last].t(), x_RK.t()))
    elif _is_bfloat16(x_SK):
        first, last = _rounded_up(begin, end, len(x_SK), _step(end - begin))
        # The narrower factor is the one to copy.
        if x_SK.shape[1] <= grad_SN.shape[1]:
            grad_RN, x_RK = grad_SN[first:last], _others_zeroed(x_SK, first, begin, end, last)
        else:
            grad_RN, x_RK = _others_zeroed(grad_SN, first, begin, end, last), x_SK[first:last]
        out_NK.copy_(grad_RN.t().mm(x_RK))
    elif out_NK.dtype != x_SK.dtype:
        out_NK.copy_(grad_SN[begin:end].T.mm(x_SK[begin:end]))
    else:
        torch.mm(grad_SN[begin:end].T, x_SK[begin:end], out=out_NK)


def _is_bfloat16(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.bfloat16


def _step(rows: int) -> int:
    """Returns the distance of the sizes to which this number of rows is rounded up."""
    return max(ROW_STEP, (1 << (rows.bit_length() - 1)) // SIZES_AN_OCTAVE)


def _rounded_up(begin: int, end: int, size: int, step: int) -> tuple[int, int]:
    """Returns the first and one past the last of a multiple of `step` rows, among `size`, around begin..end."""
    rows = min(size, -(-(end - begin) // step) * step)
    first = min(begin, size - rows)
    return first, first + rows


def _others_zeroed(x_SK: Tensor, first: int, begin: int, end: int, last: int) -> Tensor:
    """Returns the rows first..last, of which those outside begin..end, other experts', are zeros."""
    x_RK = x_SK[first:last]
    if last - first > end - begin:
        x_RK = x_RK.clone()
        x_RK[: begin - first] = 0.0
        x_RK[end - first :] = 0.0
    return x_RK
