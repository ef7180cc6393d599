"""Attention whose queries and keys are normalised in each head, so that its logits stay bounded (arXiv 2302.05442)."""

from torch import Tensor

from trfmoe_core.config.model import ModelConfig
from trfmoe_core.model.attention.base import ATTENTIONS, Attention
from trfmoe_core.model.layers import RMSNorm


@ATTENTIONS.register("normed")
class NormedAttention(Attention):
    """Root-mean-square norms over the width of a head, one weight for all query heads and one for all key heads."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.query_norm = RMSNorm(self.head_width, config.norm_eps)
        self.key_norm = RMSNorm(self.head_width, config.norm_eps)

    def prepare(self, q_BTHC: Tensor, k_BTJC: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the normalised queries and keys, before they are rotated."""
        return self.query_norm(q_BTHC), self.key_norm(k_BTJC)
