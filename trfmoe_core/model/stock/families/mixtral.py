"""Mixtral (arXiv 2401.04088): Mistral's layers with experts. A model of ours with the default parts is one."""

from collections.abc import Mapping
from typing import Any

from trfmoe_core.config.model import ModelConfig
from trfmoe_core.model.stock.families.base import FAMILIES, Family


@FAMILIES.register("mixtral")
class Mixtral(Family):
    """Experts are called w1 (gate), w3 (up) and w2 (down) in files."""

    architecture = "MixtralForCausalLM"
    sparse = True
    moe = "block_sparse_moe"
    matrices = ("w1", "w3", "w2")
    theta = 1e6

    def experts(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Returns number, width and balance of the experts."""
        return {
            "experts": settings["num_local_experts"],
            "top_k": settings["num_experts_per_tok"],
            "expert_width": settings["intermediate_size"],
            "balance": "pooled",
            "balance_weight": settings.get("router_aux_loss_coef", 0.001),
        }

    def stock_settings(self, config: ModelConfig, vocab_size: int, dtype: str) -> dict[str, Any]:
        """Returns the content of config.json."""
        return {**super().stock_settings(config, vocab_size, dtype), "num_local_experts": config.experts}
