"""A layer's mixture of experts: the router, the path through the experts, and the load-balancing loss.

L = layers, N = tokens, D = width, E = experts, K = experts a token, P = experts on this node.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from trfmoe_core.config.model import ModelConfig
from trfmoe_core.model.dispatch import Dispatch, from_experts, plan_dispatch, to_experts
from trfmoe_core.model.experts.base import Experts
from trfmoe_core.model.local_experts import LocalExperts, whole_layer


class Routing(NamedTuple):
    """What the router of one layer decided."""

    choice_NK: Tensor
    """Local numbers of the chosen experts, the most probable first; P for one that is not on this node."""
    weight_NK: Tensor
    """float32 weights of the chosen experts; a token's weights sum to 1 unless the recipe says otherwise."""
    prob: Tensor
    """float32 mean probability, over the tokens, of each expert that can be chosen; with gradient."""
    z_loss: Tensor
    """Mean square of the log of the softmax's denominator, float32 with gradient; 0 if its weight is 0."""
    absent_counts_E: Tensor | None
    """Slots of each expert of the whole layer, if the router also picks experts that are not on this node."""


class RoutingStats(NamedTuple):
    """Routing statistics for losses and reports, of one layer (E) or stacked over layers (L, E)."""

    counts: Tensor
    """Slots of each expert of the whole layer, int64."""
    prob: Tensor
    """float32 mean probability of each expert of the whole layer, with gradient; 0 for one that cannot be chosen."""
    z_loss: Tensor
    """float32, see `Routing`; stacked: (L)."""


class Router(nn.Module):
    """Softmax over the experts in float32, the best K kept and renormalised (as in Mixtral, arXiv 2401.04088).

    With `normalize_top_k: false` their probabilities stay as they are (as in OLMoE, arXiv 2409.02060).
    """

    def __init__(self, config: ModelConfig, local: LocalExperts | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.experts, config.width))
        self.top_k, self.with_z_loss = config.top_k, config.z_loss_weight > 0
        self.normalize = config.normalize_top_k
        self.local = local or whole_layer(config.experts)
        if not self.local.whole:
            present = list(self.local.present)
            places = [present.index(e) if e in present else len(present) for e in range(config.experts)]
            self.register_buffer("present_P", torch.tensor(present), persistent=False)
            self.register_buffer("local_of_E", torch.tensor(places), persistent=False)

    def forward(self, x_ND: Tensor) -> Routing:
        """Returns the routing of the tokens."""
        among_present = self.local.restricted and not self.local.whole
        rows = self.weight.index_select(0, self.get_buffer("present_P")) if among_present else self.weight
        logits_NE = nnf.linear(x_ND.float(), rows.float())
        prob_NE = logits_NE.softmax(dim=-1)
        top_NK, choice_NK = torch.topk(prob_NE, self.top_k, dim=-1)
        counts_E = None
        if not self.local.whole and not among_present:
            if len(self.local.present) < self.local.num_experts:
                counts_E = choice_NK.new_zeros(self.local.num_experts)
                counts_E.scatter_add_(0, choice_NK.reshape(-1), torch.ones_like(choice_NK.reshape(-1)))
            choice_NK = self.get_buffer("local_of_E")[choice_NK]
        z_loss = logits_NE.logsumexp(dim=-1).square().mean() if self.with_z_loss else prob_NE.new_zeros(())
        weight_NK = top_NK / top_NK.sum(dim=-1, keepdim=True) if self.normalize else top_NK
        return Routing(choice_NK, weight_NK, prob_NE.mean(dim=0), z_loss, counts_E)

    def whole_stats(self, routing: Routing, dispatch: Dispatch) -> RoutingStats:
        """Returns the statistics of a routing, by the experts' numbers in the whole layer."""
        if self.local.whole:
            return RoutingStats(dispatch.counts_E, routing.prob, routing.z_loss)
        counts_E, prob_E, present_P = routing.absent_counts_E, routing.prob, self.get_buffer("present_P")
        if counts_E is None:
            counts_E = dispatch.counts_E.new_zeros(self.local.num_experts)
            counts_E = counts_E.index_copy(0, present_P, dispatch.counts_E)
        if self.local.restricted:
            prob_E = prob_E.new_zeros(self.local.num_experts).index_copy(0, present_P, prob_E)
        return RoutingStats(counts_E, prob_E, routing.z_loss)


def mix_experts(x_ND: Tensor, router: Router, experts: Experts) -> tuple[Tensor, RoutingStats]:
    """Returns the mixture's output (N, D) and the routing statistics."""
    routing = router(x_ND)
    local = router.local
    complete = local.restricted or len(local.present) == local.num_experts
    dispatch = plan_dispatch(routing.choice_NK, len(local.present), complete=complete)
    y_SD = experts(to_experts(x_ND, dispatch), dispatch)
    return from_experts(y_SD, routing.weight_NK, dispatch), router.whole_stats(routing, dispatch)


def balance_loss(
    counts_LE: Tensor,
    prob_LE: Tensor,
    top_k: int,
    kind: Literal["per_layer", "pooled"],
    choosable: Sequence[int] | None = None,
) -> Tensor:
    """Returns the load-balancing loss, a scalar with gradient through the probabilities (arXiv 2101.03961, eq. 4).

    Args:
        counts_LE: Slots of each expert.
        prob_LE: Mean router probability of each expert.
        top_k: Experts a token.
        kind: `per_layer`: E * sum_e f_e P_e with f_e the share of slots, averaged over layers; 1.0 is balance for
            every top-k. `pooled`: f and P are taken over all layers together and f counts slots a token, so balance
            is top_k: exactly transformers' `load_balancing_loss_func`.
        choosable: For each layer, the number of experts that its router can pick: E in the formula. None: all.
    """
    num_layers, num_experts = counts_LE.shape
    share_LE = counts_LE.float() / counts_LE.sum(dim=1, keepdim=True)
    factors = [float(num_experts)] * num_layers if choosable is None else [float(count) for count in choosable]
    if kind == "pooled":
        factor = sum(factors) / num_layers
        return factor * top_k * (share_LE.mean(dim=0) * prob_LE.mean(dim=0)).sum()
    same = len(set(factors)) == 1
    factor_L = factors[0] if same else torch.tensor(factors, device=prob_LE.device)
    return (factor_L * (share_LE * prob_LE).sum(dim=1)).mean()
