"""Attention whose queries and keys are normalised over all heads together, as in OLMo 2 (arXiv 2501.00656)."""

from torch import Tensor

from trfmoe_core.config.model import ModelConfig
from trfmoe_core.model.attention.base import ATTENTIONS, Attention
from trfmoe_core.model.layers import RMSNorm


@ATTENTIONS.register("normed_whole")
class WholeNormedAttention(Attention):
    """Root-mean-square norms over the queries of all heads, and over the keys of all heads."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.query_norm = RMSNorm(self.heads * self.head_width, config.norm_eps)
        self.key_norm = RMSNorm(self.kv_heads * self.head_width, config.norm_eps)

    def prepare(self, q_BTHC: Tensor, k_BTJC: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the normalised queries and keys, before they are rotated."""
        query = self.query_norm(q_BTHC.flatten(2)).view_as(q_BTHC)
        return query, self.key_norm(k_BTJC.flatten(2)).view_as(k_BTJC)
