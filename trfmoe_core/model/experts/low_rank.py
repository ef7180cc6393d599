"""Experts that are small changes of one feed-forward network, which they share (LoRA, arXiv 2106.09685).

S = slots sorted by expert, D = width, E = experts, F = hidden width, G = 2 F, R = rank.
"""

import math

import torch
from torch import Tensor, nn

from trfmoe_core.config.model import ModelConfig
from trfmoe_core.model.experts.base import EXPERTS, Multiply
from trfmoe_core.model.experts.swiglu import SwiGLUExperts
from trfmoe_core.model.local_experts import LocalExperts
from trfmoe_core.model.products import linear


@EXPERTS.register("low_rank")
class LowRankExperts(SwiGLUExperts):
    """Every matrix of expert e is `W + scale * B[e] @ A`, with W and A the same for all experts of a layer.

    W, the base network's matrix, and A, drawn at random, are never trained: an expert is its B alone (LoRA-FA, arXiv
    2308.03303). If A were trained too, any invertible M would give the same expert, `(B M^-1) (M A)`, so replicas that
    agree could look different to a vote. With A fixed the update of an expert is linear in B. B begins at zero, so at
    first every expert is the base network.

    An expert that is not on a node adds nothing to the base network.
    """

    def __init__(self, config: ModelConfig, local: LocalExperts | None = None) -> None:
        super().__init__(config, local)
        self.scale = config.low_rank_scale
        self.base = nn.Module()
        for name, (rows, columns) in SwiGLUExperts.shapes(config).items():
            self.base.register_parameter(_base(name), nn.Parameter(torch.empty(rows, columns)))
            self.base.register_parameter(_factor(name), nn.Parameter(torch.empty(config.rank, columns)))

    @staticmethod
    def shapes(config: ModelConfig) -> dict[str, tuple[int, int]]:
        """Returns the factors B of one expert."""
        return {_stack(name): (rows, config.rank) for name, (rows, _) in SwiGLUExperts.shapes(config).items()}

    @classmethod
    def matrices(cls, config: ModelConfig) -> dict[str, tuple[int, ...]]:
        """Returns one matrix for every matrix of the base network."""
        return {_stack(name): rows for name, rows in SwiGLUExperts.matrices(config).items()}

    @classmethod
    def activation_width(cls, config: ModelConfig) -> int:
        """Returns what a slot leaves behind in the base network, and the products with the factors A."""
        return SwiGLUExperts.activation_width(config) + config.rank * len(SwiGLUExperts.shapes(config))

    @staticmethod
    def initial_std(name: str, columns: int, std: float) -> float:
        """Returns 0 for the factors B, and for A what keeps the size of a row."""
        if name.startswith("base.a_"):
            return 1.0 / math.sqrt(columns)
        return 0.0 if name.startswith("b_") else std

    def compute(self, x_SD: Tensor, multiply: Multiply) -> Tensor:
        """Returns (S, D)."""

        def changed(rows: Tensor, name: str) -> Tensor:
            narrow_SR = linear(rows, getattr(self.base, _factor(name)).to(rows.dtype))
            added = multiply(narrow_SR, _stack(name))
            return linear(rows, getattr(self.base, _base(name)).to(rows.dtype)).add_(added, alpha=self.scale)

        return super().compute(x_SD, changed)

    @torch.no_grad()
    def merged(self, config: ModelConfig) -> dict[str, Tensor]:
        """Returns the stacks of full experts that compute the same, by their names in `SwiGLUExperts`."""
        found = {}
        for name in SwiGLUExperts.shapes(config):
            base, factor = getattr(self.base, _base(name)), getattr(self.base, _factor(name))
            found[name] = base + self.scale * (self.get_parameter(_stack(name)) @ factor)
        return found


def _stack(name: str) -> str:
    """Returns the name of the factors B of a stack: `w_down_EDF` has `b_down_EDR`."""
    return f"b_{name[2:-1]}R"


def _base(name: str) -> str:
    """Returns the name of the base network's matrix: `w_down_EDF` has `w_down_DF`."""
    return f"{name[:-3]}{name[-2:]}"


def _factor(name: str) -> str:
    """Returns the name of the factor A: `w_down_EDF` has `a_down_RF`."""
    return f"a_{name[2:-3]}R{name[-1]}"
