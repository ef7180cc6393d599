"""Next-token cross-entropy straight from the last hidden states, without ever holding all logits.

N = tokens, D = width, V = vocabulary, R = rows of one chunk.
"""

from typing import Any

import torch
from torch import Tensor

from trfmoe_core.model.memory import reused
from trfmoe_core.model.products import fast_product, uses_fast_products

CPU_CHUNK_BYTES = 8 << 20
CUDA_CHUNK_BYTES = 1 << 30
PART = 1024
"""Rows of the vocabulary in one product of oneDNN: its results are new memory each time, so they stay small."""


def linear_cross_entropy(x_ND: Tensor, w_VD: Tensor, targets_N: Tensor, mask_N: Tensor | None = None) -> Tensor:
    """Returns the mean over unmasked tokens of `-log softmax(x @ w.T)[target]`, a float32 scalar in nats.

    Gradients are computed in the forward pass, chunk by chunk, so that peak memory holds one chunk of logits; a second
    backward pass through the same loss is not possible.

    Args:
        mask_N: True where a target counts; None counts all. If none counts, the loss is 0.
    """
    needs_grad = torch.is_grad_enabled() and (x_ND.requires_grad or w_VD.requires_grad)
    loss: Tensor = _LinearCrossEntropy.apply(x_ND, w_VD, targets_N, mask_N, needs_grad)  # type: ignore[no-untyped-call]
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_ND: Tensor, w_VD: Tensor, targets_N: Tensor, mask_N: Tensor | None, needs_grad: bool
    ) -> Tensor:
        weights_VD = w_VD.to(x_ND.dtype)
        budget = CPU_CHUNK_BYTES if x_ND.device.type == "cpu" else CUDA_CHUNK_BYTES
        rows = max(64, budget // (4 * w_VD.shape[0]))
        total = torch.zeros((), dtype=torch.float32, device=x_ND.device)
        count = torch.full_like(total, len(x_ND)) if mask_N is None else mask_N.sum().clamp(min=1).float()
        grad_x_ND = torch.empty_like(x_ND) if needs_grad else None
        grad_w_VD = reused(tuple(w_VD.shape), total) if needs_grad else None
        for begin in range(0, x_ND.shape[0], rows):
            chunk = slice(begin, begin + rows)
            x_RD, target_R1 = x_ND[chunk], targets_N[chunk].unsqueeze(1)
            nats_R1, prob_RV = _nats(x_RD, weights_VD, target_R1)
            total += (nats_R1 if mask_N is None else nats_R1 * mask_N[chunk].unsqueeze(1)).sum()
            if grad_x_ND is None or grad_w_VD is None:
                continue
            prob_RV.scatter_add_(1, target_R1, torch.full_like(nats_R1, -1.0))
            if mask_N is not None:
                prob_RV *= mask_N[chunk].unsqueeze(1)
            grad_RV = prob_RV.to(x_ND.dtype)
            # The mean's divisor goes into the small factors, not into the large results.
            if uses_fast_products(grad_RV, weights_VD, x_RD):
                torch.div(fast_product(grad_RV, weights_VD.t()), count, out=grad_x_ND[chunk])
                scaled_RD = x_RD / count
                for part in _parts(len(w_VD)):
                    grad_part = fast_product(grad_RV[:, part].t(), scaled_RD.t())
                    grad_w_VD[part].add_(grad_part) if begin else grad_w_VD[part].copy_(grad_part)
                continue
            if x_ND.dtype == torch.float32:
                torch.div(grad_RV.mm(weights_VD), count, out=grad_x_ND[chunk])
                torch.addmm(grad_w_VD, grad_RV.T, x_RD / count, beta=int(begin > 0), out=grad_w_VD)
                continue
            grad_x_ND[chunk] = grad_RV.mm(weights_VD) / count
            grad_chunk = grad_RV.T.mm(x_RD).float() / count
            if begin:
                grad_w_VD += grad_chunk
            else:
                grad_w_VD.copy_(grad_chunk)
        ctx.weight_dtype = w_VD.dtype
        # Not saved for backward, so that nobody else has them there and the gradient of the weights is not copied.
        ctx.grads = (grad_x_ND, grad_w_VD)
        return total / count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        if ctx.grads is None:
            raise RuntimeError("a second backward pass through linear_cross_entropy; compute the loss again")
        (grad_x_ND, grad_w_VD), ctx.grads = ctx.grads, None
        # On CUDA the number is not asked for: that would wait for the device.
        if grads[0].device.type != "cpu" or grads[0] != 1.0:
            grad_x_ND *= grads[0]
            grad_w_VD *= grads[0]
        return grad_x_ND, grad_w_VD.to(ctx.weight_dtype), None, None, None


def _parts(size: int) -> list[slice]:
    return [slice(begin, begin + PART) for begin in range(0, size, PART)]


def _nats(x_RD: Tensor, w_VD: Tensor, target_R1: Tensor) -> tuple[Tensor, Tensor]:
    """Returns each row's loss (R, 1) and the probabilities (R, V), both float32."""
    logits_RV = reused((len(x_RD), len(w_VD)), x_RD)
    if uses_fast_products(x_RD, w_VD):
        for part in _parts(len(w_VD)):
            logits_RV[:, part] = fast_product(x_RD, w_VD[part])
    else:
        torch.mm(x_RD, w_VD.T, out=logits_RV)
    top_R1 = logits_RV.amax(dim=-1, keepdim=True).float()
    at_target_R1 = logits_RV.gather(1, target_R1).float()
    in_place = logits_RV.dtype == torch.float32
    prob_RV = torch.softmax(logits_RV, dim=-1, dtype=torch.float32, out=logits_RV if in_place else None)
    # The largest probability is one over the sum of the exponentials.
    return top_R1 - at_target_R1 - prob_RV.amax(dim=-1, keepdim=True).log(), prob_RV
