"""What the families share whose settings count the experts as `num_experts`."""

from collections.abc import Mapping
from typing import Any

from trfmoe_core.config.model import ModelConfig
from trfmoe_core.model.stock.families.base import Family


class ManyExperts(Family):
    """The settings of OLMoE; a subclass says what its family does otherwise."""

    sparse = True
    balance_weight = 0.001
    """Weight of the balance loss where a folder does not say it."""

    def experts(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Returns number, width, weights and balance of the experts."""
        # Qwen3-MoE is written with the one name by older and with the other by newer transformers.
        count = settings["num_experts"] if "num_experts" in settings else settings["num_local_experts"]
        return {
            "experts": count,
            "top_k": settings["num_experts_per_tok"],
            "expert_width": settings["intermediate_size"],
            "normalize_top_k": settings.get("norm_topk_prob", False),
            "balance": "pooled",
            "balance_weight": settings.get("router_aux_loss_coef", self.balance_weight),
        }

    def objection(self, config: ModelConfig) -> str | None:
        """Returns the first part that the family does not have."""
        found = super().objection(config)
        wide = config.head_width * config.heads != config.width
        if found is None and wide and config.attention == "normed_whole":
            return f"model.head_dim: {config.head_dim}: {self.architecture} has only width / heads"
        return found

    def free_parts(self) -> frozenset[str]:
        """Returns the parts that can be either way."""
        return frozenset({"normalize_top_k"})

    def stock_settings(self, config: ModelConfig, vocab_size: int, dtype: str) -> dict[str, Any]:
        """Returns the content of config.json."""
        settings = super().stock_settings(config, vocab_size, dtype)
        return {**settings, "num_experts": config.experts, "norm_topk_prob": config.normalize_top_k}
