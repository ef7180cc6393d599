"""OLMoE (arXiv 2409.02060): norms over all queries and keys, and the probabilities of the experts as they are."""

from collections.abc import Mapping
from typing import Any, ClassVar

from trfmoe_core.model.stock.families.base import FAMILIES
from trfmoe_core.model.stock.families.many_experts import ManyExperts


@FAMILIES.register("olmoe")
class Olmoe(ManyExperts):
    """Llama's places of the norms."""

    architecture = "OlmoeForCausalLM"
    parts: ClassVar[Mapping[str, Any]] = {"attention": "normed_whole"}
    only: ClassVar[Mapping[str, Any]] = {"clip_qkv": None}
    balance_weight = 0.01
