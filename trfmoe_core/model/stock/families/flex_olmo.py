"""FlexOlmo (arXiv 2507.07024): OLMo 2's layers with experts."""

from collections.abc import Mapping
from typing import Any, ClassVar

from trfmoe_core.model.stock.families.base import FAMILIES
from trfmoe_core.model.stock.families.many_experts import ManyExperts
from trfmoe_core.model.stock.families.olmo2 import Olmo2


@FAMILIES.register("flex_olmo")
class FlexOlmo(ManyExperts):
    """What OLMo 2 becomes when it is upcycled."""

    architecture = "FlexOlmoForCausalLM"
    attention_norm = Olmo2.attention_norm
    moe_norm = Olmo2.moe_norm
    parts: ClassVar[Mapping[str, Any]] = Olmo2.parts
    balance_weight = 0.01
