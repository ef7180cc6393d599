"""The network that every token takes besides its experts (Qwen2-MoE, arXiv 2407.10671). It belongs to the trunk.

N = tokens, D = width, F = its hidden width.
"""

from torch import Tensor, nn

from trfmoe_core.config.model import ModelConfig
from trfmoe_core.model.experts.swiglu import swiglu
from trfmoe_core.model.layers import Projection


class SharedExpert(nn.Module):
    """`sigmoid(gate(x)) * down(silu(gate(x)) * up(x))`, with one number a token as the outer gate."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_up = Projection(config.width, 2 * config.shared_width)
        self.down = Projection(config.shared_width, config.width)
        self.gate = Projection(config.width, 1)

    def matrices(self) -> dict[str, tuple[int, ...]]:
        """Returns the parameters that are matrices, and the rows of the separate matrices in each."""
        hidden, width = self.down.weight.shape[1], self.down.weight.shape[0]
        return {"gate_up.weight": (hidden, hidden), "down.weight": (width,)}

    def forward(self, x_ND: Tensor) -> Tensor:
        """Returns (N, D)."""
        y_ND: Tensor = self.down(swiglu(self.gate_up(x_ND)))
        gate_N1: Tensor = self.gate(x_ND)
        return gate_N1.sigmoid() * y_ND
