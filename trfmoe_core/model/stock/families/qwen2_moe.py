"""Qwen2-MoE and Qwen1.5-MoE (arXiv 2407.10671): Qwen2's layers with experts and one that every token takes."""

from collections.abc import Mapping
from typing import Any, ClassVar

from trfmoe_core.config.model import ModelConfig
from trfmoe_core.model.stock.families.base import FAMILIES
from trfmoe_core.model.stock.families.qwen_experts import QwenExperts


@FAMILIES.register("qwen2_moe")
class Qwen2Moe(QwenExperts):
    """What Qwen2 becomes when it is upcycled."""

    architecture = "Qwen2MoeForCausalLM"
    parts: ClassVar[Mapping[str, Any]] = {"qkv_bias": True}

    def experts(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Returns number, width, weights and balance of the experts, and the width of the shared one."""
        return {
            **super().experts(settings),
            "qkv_bias": settings.get("qkv_bias", True),
            "shared_width": settings["shared_expert_intermediate_size"],
        }

    def free_parts(self) -> frozenset[str]:
        """Returns the parts that can be either way."""
        return super().free_parts() | {"shared_width", "qkv_bias"}

    def stock_settings(self, config: ModelConfig, vocab_size: int, dtype: str) -> dict[str, Any]:
        """Returns the content of config.json."""
        return {
            **super().stock_settings(config, vocab_size, dtype),
            "shared_expert_intermediate_size": config.shared_width,
            "qkv_bias": config.qkv_bias,
        }
