"""What the Qwen families with experts share."""

from collections.abc import Mapping
from typing import Any, ClassVar

from trfmoe_core.config.model import ModelConfig
from trfmoe_core.model.stock.families.many_experts import ManyExperts


class QwenExperts(ManyExperts):
    """Every layer has experts, and their width has a setting of its own."""

    only: ClassVar[Mapping[str, Any]] = {"decoder_sparse_step": 1, "mlp_only_layers": []}

    def experts(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Returns number, width, weights and balance of the experts."""
        return super().experts({**settings, "intermediate_size": settings["moe_intermediate_size"]})

    def stock_settings(self, config: ModelConfig, vocab_size: int, dtype: str) -> dict[str, Any]:
        """Returns the content of config.json."""
        return {
            **super().stock_settings(config, vocab_size, dtype),
            "moe_intermediate_size": config.expert_width,
            "use_sliding_window": False,
            **self.only,
        }
