"""A layer's mixture of experts: the router, the stacked SwiGLU experts, and their balance loss.

L = layers, N = tokens, D = width, E = experts, K = experts a token, S = N * K slots sorted by expert,
F = hidden width of an expert, G = 2 F (gate rows, then up rows).
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from trfmoe_core.config.schema import ModelConfig
from trfmoe_core.model.dispatch import Backend, Dispatch, from_experts, grouped_multiply, plan_dispatch, to_experts


@dataclass(frozen=True)
class Routing:
    """What the router of one layer decided."""

    choice_NK: Tensor
    """Chosen experts, the most probable first."""
    weight_NK: Tensor
    """float32 weights of the chosen experts, summing to 1 a token."""
    prob_E: Tensor
    """float32 mean probability of each expert over the tokens, with gradient."""


class Router(nn.Module):
    """Softmax over all experts in float32, the best K kept and renormalised (as in Mixtral, arXiv 2401.04088)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.experts, config.width))
        self.top_k = config.top_k

    def forward(self, x_ND: Tensor) -> Routing:
        """Returns the routing of the tokens."""
        prob_NE = nnf.linear(x_ND.float(), self.weight.float()).softmax(dim=-1)
        top_NK, choice_NK = torch.topk(prob_NE, self.top_k, dim=-1)
        return Routing(choice_NK, top_NK / top_NK.sum(dim=-1, keepdim=True), prob_NE.mean(dim=0))


class Experts(nn.Module):
    """All experts of a layer in two stacked tensors, transformers' layout: `w[e]` is expert e, contiguous."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.w_gate_up_EGD = nn.Parameter(torch.empty(config.experts, 2 * config.expert_width, config.width))
        self.w_down_EDF = nn.Parameter(torch.empty(config.experts, config.width, config.expert_width))
        self.backend: Backend | None = None

    def forward(self, x_SD: Tensor, dispatch: Dispatch) -> Tensor:
        """Returns (S, D): every sorted row through its expert."""
        gate_up_SG = grouped_multiply(x_SD, self.w_gate_up_EGD, dispatch, self.backend)
        return grouped_multiply(swiglu(gate_up_SG), self.w_down_EDF, dispatch, self.backend)


def mix_experts(x_ND: Tensor, router: Router, experts: Experts) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the mixture's output (N, D), the slots of each expert (E, int64) and its mean probability (E)."""
    routing = router(x_ND)
    dispatch = plan_dispatch(routing.choice_NK, router.weight.shape[0])
    y_SD = experts(to_experts(x_ND, dispatch), dispatch)
    return from_experts(y_SD, routing.weight_NK, dispatch), dispatch.counts_E, routing.prob_E


def balance_loss(counts_LE: Tensor, prob_LE: Tensor, top_k: int, kind: Literal["per_layer", "pooled"]) -> Tensor:
    """Returns the load-balancing loss, a scalar with gradient through the probabilities (arXiv 2101.03961, eq. 4).

    Args:
        counts_LE: slots of each expert.
        prob_LE: mean router probability of each expert.
        kind: `per_layer`: E * sum_e f_e P_e with f_e the share of slots, averaged over layers; 1.0 is balance for
            every top-k. `pooled`: f and P are taken over all layers together and f counts slots a token, so balance
            is top_k: exactly transformers' `load_balancing_loss_func`.
    """
    num_experts = counts_LE.shape[1]
    share_LE = counts_LE.float() / counts_LE.sum(dim=1, keepdim=True)
    if kind == "per_layer":
        return num_experts * (share_LE * prob_LE).sum(dim=1).mean()
    return num_experts * top_k * (share_LE.mean(dim=0) * prob_LE.mean(dim=0)).sum()


def swiglu(gate_up_SG: Tensor) -> Tensor:
    """Returns `silu(gate) * up` of the two halves of the last dimension (arXiv 2002.05202)."""
    if torch.compiler.is_compiling():
        gate_SF, up_SF = gate_up_SG.chunk(2, dim=-1)
        return nnf.silu(gate_SF) * up_SF
    hidden_SF: Tensor = _SwiGLU.apply(gate_up_SG)  # type: ignore[no-untyped-call]
    return hidden_SF


class _SwiGLU(torch.autograd.Function):
    """Keeps only its input for the backward pass and writes both halves of the gradient in place."""

    @staticmethod
    def forward(ctx: Any, gate_up_SG: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up_SG)
        gate_SF, up_SF = gate_up_SG.chunk(2, dim=-1)
        return nnf.silu(gate_SF).mul_(up_SF)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (gate_up_SG,) = ctx.saved_tensors
        gate_SF, up_SF = gate_up_SG.chunk(2, dim=-1)
        grad_SG = torch.empty_like(gate_up_SG)
        grad_gate_SF, grad_up_SF = grad_SG.chunk(2, dim=-1)
        scratch_SF = nnf.silu(gate_SF)
        torch.mul(scratch_SF, grads[0], out=grad_up_SF)
        torch.mul(grads[0], up_SF, out=scratch_SF)
        torch.ops.aten.silu_backward.grad_input(scratch_SF, gate_SF, grad_input=grad_gate_SF)
        return grad_SG
