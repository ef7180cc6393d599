"""Next-token cross-entropy straight from the last hidden states, without ever holding all logits.

N = tokens, D = width, V = vocabulary, R = rows of one chunk.
"""

from typing import Any

import torch
from torch import Tensor

CPU_CHUNK_BYTES = 8 << 20
CUDA_CHUNK_BYTES = 1 << 30


def linear_cross_entropy(x_ND: Tensor, w_VD: Tensor, targets_N: Tensor, mask_N: Tensor | None = None) -> Tensor:
    """Returns the mean over unmasked tokens of `-log softmax(x @ w.T)[target]`, a float32 scalar in nats.

    Gradients are computed in the forward pass, chunk by chunk, so that peak memory holds one chunk of logits.

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
        grad_w_VD = torch.zeros_like(w_VD, dtype=torch.float32) if needs_grad else None
        for begin in range(0, x_ND.shape[0], rows):
            chunk = slice(begin, begin + rows)
            x_RD, target_R1 = x_ND[chunk], targets_N[chunk].unsqueeze(1)
            log_prob_RV = torch.log_softmax(x_RD.mm(weights_VD.T), dim=-1, dtype=torch.float32)
            nats_R1 = log_prob_RV.gather(1, target_R1)
            total -= (nats_R1 if mask_N is None else nats_R1 * mask_N[chunk].unsqueeze(1)).sum()
            if grad_x_ND is None or grad_w_VD is None:
                continue
            grad_RV = log_prob_RV.exp_()
            grad_RV.scatter_add_(1, target_R1, torch.full_like(nats_R1, -1.0))
            if mask_N is not None:
                grad_RV *= mask_N[chunk].unsqueeze(1)
            grad_RV = grad_RV.to(x_ND.dtype)
            grad_x_ND[chunk] = grad_RV.mm(weights_VD)
            if x_ND.dtype == torch.float32:
                grad_w_VD.addmm_(grad_RV.T, x_RD)
            else:
                grad_w_VD += grad_RV.T.mm(x_RD)
        ctx.weight_dtype = w_VD.dtype
        if needs_grad:
            ctx.save_for_backward(grad_x_ND, grad_w_VD, count)
        return total / count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        grad_x_ND, grad_w_VD, count = ctx.saved_tensors
        scale = grads[0] / count
        return (grad_x_ND * scale).to(grad_x_ND.dtype), (grad_w_VD * scale).to(ctx.weight_dtype), None, None, None
