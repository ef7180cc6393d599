"""OLMo 2 (arXiv 2501.00656): norms after attention and feed-forward network, and over all queries and keys."""

from collections.abc import Mapping
from typing import Any, ClassVar

from trfmoe_core.model.stock.families.base import FAMILIES, Family


@FAMILIES.register("olmo2")
class Olmo2(Family):
    """Reordered norms, dense."""

    architecture = "Olmo2ForCausalLM"
    attention_norm = "post_attention_layernorm"
    moe_norm = "post_feedforward_layernorm"
    parts: ClassVar[Mapping[str, Any]] = {"attention": "normed_whole", "norm_position": "after"}
