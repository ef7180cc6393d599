"""Matrix products of the model. The model's matrix products. Only this file knows oneDNN and the CPU's kernels for few
rows.

torch multiplies float32 matrices with MKL, which keeps to AVX2 on processors that are not Intel's. oneDNN, which torch
brings along too, uses AVX-512 there. Measured on an AMD EPYC: a product is 2.2 times as fast, a whole training step at
width 256 is 1.6 times as fast and at the demo's 1.15 times. Both compute in float32.

M = rows, N = output width, K = input width, S = rows sorted by expert, R = rows of one expert, rounded up.
"""

import platform
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor

ROW_STEP = 16
"""oneDNN compiles a kernel for every new shape, so an expert's number of rows is rounded up to a multiple of this."""

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
    """Writes `x @ w.T` for the rows begin..end of `x`; a row's result does not depend on how many rows there are.

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
        first, last = _rounded_up(begin, end, len(x_SK))
        out_SN[begin:end] = onednn_product(x_SK[first:last], w_NK)[begin - first : end - first]
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
        out_NK: Where the gradient is written; zeros if the expert has no rows.
    """
    if begin == end:
        out_NK.zero_()
    elif uses_onednn(grad_SN, x_SK):
        first, last = _rounded_up(begin, end, len(x_SK))
        x_RK = x_SK[first:last]
        if last - first > end - begin:
            # Rows of other experts, here only to round the number up, count as zeros.
            x_RK = x_RK.clone()
            x_RK[: begin - first] = 0.0
            x_RK[end - first :] = 0.0
        out_NK.copy_(onednn_product(grad_SN[first:last].t(), x_RK.t()))
    else:
        torch.mm(grad_SN[begin:end].T, x_SK[begin:end], out=out_NK)


def _rounded_up(begin: int, end: int, size: int) -> tuple[int, int]:
    """Returns the first and one past the last of a multiple of `ROW_STEP` rows, among `size`, around begin..end."""
    rows = min(size, -(-(end - begin) // ROW_STEP) * ROW_STEP)
    first = min(begin, size - rows)
    return first, first + rows
