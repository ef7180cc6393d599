"""The plain feed-forward expert with GELU and no gate, of GPT-2 and Switch Transformers."""

import torch.nn.functional as nnf
from torch import Tensor

from trfmoe_core.config.model import ModelConfig
from trfmoe_core.model.experts.base import EXPERTS, Experts, Multiply


@EXPERTS.register("gelu")
class GELUExperts(Experts):
    """`down(gelu(up(x)))` (arXiv 1606.08415): two matrices an expert instead of three."""

    @staticmethod
    def shapes(config: ModelConfig) -> dict[str, tuple[int, int]]:
        """Returns the matrices of one expert."""
        return {"w_up_EFD": (config.expert_width, config.width), "w_down_EDF": (config.width, config.expert_width)}

    def compute(self, x_SD: Tensor, multiply: Multiply) -> Tensor:
        """Returns (S, D)."""
        return multiply(nnf.gelu(multiply(x_SD, "w_up_EFD")), "w_down_EDF")
