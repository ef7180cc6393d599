"""What a stock folder says besides the model's shape: it is kept, and an export says it again."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from trfmoe_core.model.stock.families.base import family_of
from trfmoe_core.model.stock.settings import CONFIG_FILE, read_object

GENERATION_FILE = "generation_config.json"
# Keys that say nothing about the model, or that are written anew.
_NOT_KEPT = {"_name_or_path", "transformers_version", "auto_map", "rope_scaling"}
# Settings of shapes and parts, which an export writes from the recipe.
_SHAPE = {
    *("architectures", "model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads", "head_dim", "num_local_experts", "num_experts"),
    *("num_experts_per_tok", "rms_norm_eps", "rope_theta", "rope_parameters", "tie_word_embeddings"),
    *("router_aux_loss_coef", "initializer_range", "hidden_act", "dtype", "torch_dtype", "norm_topk_prob"),
    *("moe_intermediate_size", "shared_expert_intermediate_size", "qkv_bias", "layer_types", "max_window_layers"),
    *("use_sliding_window", "decoder_sparse_step", "mlp_only_layers"),
}
# Settings that change the training of stock transformers only.
_TRAINING_ONLY = ("router_jitter_noise", "attention_dropout")


@dataclass(frozen=True)
class KeptSettings:
    """What a stock folder says besides the model's shape. An export of the model says it again.

    Attributes:
        config: keys of config.json that the model's shape does not determine, among them `eos_token_id`.
        generation: generation_config.json; None if the folder has none.
    """

    config: dict[str, Any] = field(default_factory=dict)
    generation: dict[str, Any] | None = None

    @property
    def end_ids(self) -> list[int]:
        """The tokens that end a text."""
        found = (self.generation or {}).get("eos_token_id", self.config.get("eos_token_id"))
        ids = found if isinstance(found, list) else [found]
        return [one for one in ids if isinstance(one, int)]

    def also_ended_by(self, token: int) -> "KeptSettings":
        """Returns the settings with one more token that ends a generated text."""
        generation = self.generation or {}
        return replace(self, generation={**generation, "eos_token_id": list(dict.fromkeys([*self.end_ids, token]))})

    @property
    def remarks(self) -> list[str]:
        """Settings that are kept for the export and are not used here."""
        return [
            f"{key} {self.config[key]} acts in the training of transformers only; it is not used here, and an export "
            "says it again"
            for key in _TRAINING_ONLY
            if self.config.get(key)
        ]

    def to_json(self) -> str:
        """Returns the settings as text, for `from_json`."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "KeptSettings":
        """Returns the settings that `to_json` wrote."""
        return cls(**json.loads(text))


def kept_settings(folder: Path) -> KeptSettings:
    """Returns what a folder says besides the model's shape.

    Raises:
        OSError: a file cannot be read.
        UnsupportedError: a file is no JSON object, or describes a model that cannot be computed here.
    """
    settings: Mapping[str, Any] = read_object(folder / CONFIG_FILE)
    family_of(settings)
    kept = {key: value for key, value in settings.items() if key not in _SHAPE and key not in _NOT_KEPT}
    generation = folder / GENERATION_FILE
    return KeptSettings(kept, read_object(generation) if generation.is_file() else None)
