"""Qwen3-MoE (arXiv 2505.09388): Qwen3's layers with experts."""

from collections.abc import Mapping
from typing import Any, ClassVar

from trfmoe_core.model.stock.families.base import FAMILIES
from trfmoe_core.model.stock.families.qwen3 import Qwen3
from trfmoe_core.model.stock.families.qwen_experts import QwenExperts


@FAMILIES.register("qwen3_moe")
class Qwen3Moe(QwenExperts):
    """What Qwen3 becomes when it is upcycled."""

    architecture = "Qwen3MoeForCausalLM"
    parts: ClassVar[Mapping[str, Any]] = Qwen3.parts
