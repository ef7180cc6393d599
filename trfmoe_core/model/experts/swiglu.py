"""The gated feed-forward expert of Mixtral.

S = slots sorted by expert, D = width, E = experts, F = hidden width of an expert, G = 2 F (gate rows, then up rows).
"""

import torch.nn.functional as nnf
from torch import Tensor

from trfmoe_core.config.model import ModelConfig
from trfmoe_core.model.experts.base import EXPERTS, Experts, Multiply


@EXPERTS.register("swiglu")
class SwiGLUExperts(Experts):
    """`down(silu(gate(x)) * up(x))` in transformers' layout: gate and up in one matrix."""

    @staticmethod
    def shapes(config: ModelConfig) -> dict[str, tuple[int, int]]:
        """Returns the matrices of one expert."""
        width, hidden = config.width, config.expert_width
        return {"w_gate_up_EGD": (2 * hidden, width), "w_down_EDF": (width, hidden)}

    @classmethod
    def matrices(cls, config: ModelConfig) -> dict[str, tuple[int, ...]]:
        """Returns gate and up as two matrices."""
        hidden = config.expert_width
        return {"w_gate_up_EGD": (hidden, hidden), "w_down_EDF": (config.width,)}

    @classmethod
    def activation_width(cls, config: ModelConfig) -> int:
        """Returns what a slot leaves behind: also `silu(gate)`, beside in- and outputs of the matrices."""
        return super().activation_width(config) + config.expert_width

    def compute(self, x_SD: Tensor, multiply: Multiply) -> Tensor:
        """Returns (S, D)."""
        return multiply(swiglu(multiply(x_SD, "w_gate_up_EGD")), "w_down_EDF")


def swiglu(gate_up_SG: Tensor) -> Tensor:
    """Returns `silu(gate) * up` of the two halves of the last dimension (arXiv 2002.05202)."""
    gate_SF, up_SF = gate_up_SG.chunk(2, dim=-1)
    return nnf.silu(gate_SF) * up_SF
