"""Translates the settings of a Mixtral folder: what can be computed here is kept, all else is refused by name."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trfmoe_core.config.model import ModelConfig
from trfmoe_core.errors import ConfigError, RunFolderError

CONFIG_FILE, GENERATION_FILE = "config.json", "generation_config.json"
# Keys that say nothing about the model, or that are written anew.
_NOT_KEPT = {"_name_or_path", "transformers_version", "auto_map"}
# Settings that change the training of stock transformers only.
_TRAINING_ONLY = ("router_jitter_noise", "attention_dropout")
_DEFAULT_THETA = 1e6
_ROW_ELEMENTS = 8


class UnsupportedError(RunFolderError):
    """A setting that cannot be computed here; the message names it."""


@dataclass(frozen=True)
class KeptSettings:
    """What a Mixtral folder says besides the model's shape. An export of the model says it again.

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
    settings = read_object(folder / CONFIG_FILE)
    shape = mixtral_config(model_config(settings, None), 1)
    keep = {"eos_token_id", "sliding_window", "max_position_embeddings"}
    kept = {key: value for key, value in settings.items() if key in keep or key not in {*shape, *_NOT_KEPT}}
    # The spelling of the rotary base follows from the shape.
    kept.pop("rope_scaling", None)
    generation = folder / GENERATION_FILE
    return KeptSettings(kept, read_object(generation) if generation.is_file() else None)


def read_object(path: Path) -> dict[str, Any]:
    """Returns the JSON object in a file.

    Raises:
        OSError: it cannot be read.
        UnsupportedError: it is no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UnsupportedError(f"{path.name} is no JSON ({error})") from error
    if not isinstance(value, dict):
        raise UnsupportedError(f"{path.name} holds a {type(value).__name__}, not an object")
    return value


def mixtral_config(config: ModelConfig, vocab_size: int, dtype: str = "float32") -> dict[str, Any]:
    """Returns the settings of a stock `MixtralConfig` of the same shape.

    Raises:
        ConfigError: If the model has parts that Mixtral does not have.
    """
    for key, value, needed in (("expert", config.expert, "swiglu"), ("attention", config.attention, "rotary")):
        if value != needed:
            raise ConfigError(
                f"model.{key}: {value}: a Mixtral folder can only hold {needed}; train with model.{key}={needed} "
                "to export, or load the checkpoint's weights.safetensors with this code"
            )
    return {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "vocab_size": vocab_size,
        "hidden_size": config.width,
        "intermediate_size": config.expert_width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_width,
        "num_local_experts": config.experts,
        "num_experts_per_tok": config.top_k,
        "max_position_embeddings": config.context,
        "rms_norm_eps": config.norm_eps,
        # transformers 5 reads rope_parameters, older readers rope_theta.
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "tie_word_embeddings": config.tie_embeddings,
        "router_aux_loss_coef": config.balance_weight,
        "initializer_range": config.init_std,
        "hidden_act": "silu",
        "sliding_window": None,
        "eos_token_id": None,
        "dtype": dtype,
        "torch_dtype": dtype,
    }


def export_remarks(config: ModelConfig) -> list[str]:
    """Returns what stock transformers will not do with an export of a model of this shape.

    Its grouped kernel wants the rows of an expert's matrices to be multiples of 16 bytes.
    """
    if (config.expert, config.attention) != ("swiglu", "rotary"):
        return []
    remarks = []
    for key, value in (("width", config.width), ("expert_width", config.expert_width)):
        if value % _ROW_ELEMENTS:
            types = "bfloat16 and float32" if value % (_ROW_ELEMENTS // 2) else "bfloat16"
            fitting = value // _ROW_ELEMENTS * _ROW_ELEMENTS
            others = " or ".join(str(one) for one in (fitting, fitting + _ROW_ELEMENTS) if one)
            remarks.append(
                f"model.{key}: {value}: no multiple of {_ROW_ELEMENTS}, so stock transformers runs it in {types} "
                f'only with experts_implementation="eager"; choose {others} to use its fast kernel'
            )
    return remarks


def model_config(settings: Mapping[str, Any], context: int | None) -> ModelConfig:
    """Returns the shape that a Mixtral's config.json describes.

    Args:
        settings: The content of config.json.
        context: Tokens a sequence in training; None: `max_position_embeddings`.

    Raises:
        UnsupportedError: It describes a model that cannot be computed here, or no model.
    """
    try:
        theta = _checked(settings, context)
        return ModelConfig(
            layers=settings["num_hidden_layers"],
            vocab_size=settings["vocab_size"],
            width=settings["hidden_size"],
            heads=settings["num_attention_heads"],
            kv_heads=settings.get("num_key_value_heads"),
            experts=settings["num_local_experts"],
            top_k=settings["num_experts_per_tok"],
            expert_width=settings["intermediate_size"],
            context=context or settings["max_position_embeddings"],
            rope_theta=theta,
            norm_eps=settings["rms_norm_eps"],
            tie_embeddings=settings.get("tie_word_embeddings", False),
            init_std=settings.get("initializer_range", 0.02),
            balance="pooled",
            balance_weight=settings.get("router_aux_loss_coef", 0.001),
        )
    except KeyError as error:
        raise UnsupportedError(f"{CONFIG_FILE} does not say {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise UnsupportedError(f"{CONFIG_FILE}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise UnsupportedError(f"{CONFIG_FILE}: the sizes are no numbers above 0 ({error})") from error


def _checked(settings: Mapping[str, Any], context: int | None) -> float:
    """Returns the rotary base, after refusing what cannot be computed here."""
    if "quantization_config" in settings:
        quantization = settings["quantization_config"] or {}
        method = quantization.get("quant_method", "unknown method") if isinstance(quantization, dict) else quantization
        raise UnsupportedError(f"the weights are quantized ({method}); save them as bfloat16 or float32 first")
    if settings.get("auto_map"):
        raise UnsupportedError(f"{CONFIG_FILE}: auto_map: the model needs code of its own, which is never run")
    _require(settings, "model_type", "mixtral")
    _require(settings, "architectures", ["MixtralForCausalLM"], absent=["MixtralForCausalLM"])
    _require(settings, "hidden_act", "silu", absent="silu")
    _require(settings, "attention_bias", False, absent=False)
    _require(settings, "mlp_bias", False, absent=False)
    width, heads = settings["hidden_size"], settings["num_attention_heads"]
    _require(settings, "head_dim", width // heads, absent=width // heads)
    longest = context or settings["max_position_embeddings"]
    window = settings.get("sliding_window")
    if window is not None and window < longest:
        raise UnsupportedError(
            f"{CONFIG_FILE}: sliding_window is {window}, below the context of {longest}, and cannot be computed here; "
            f"import with --context {window} or less"
        )
    theta = None
    for key, rope in _rope(settings):
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default":
            raise UnsupportedError(
                f"{CONFIG_FILE}: {key}: rope_type is {kind!r}, but only 'default' can be computed here"
            )
        for part in ("factor", "partial_rotary_factor"):
            if rope.get(part) not in (None, 1, 1.0):
                raise UnsupportedError(
                    f"{CONFIG_FILE}: {key}: {part} is {rope[part]!r}, but only 1 can be computed here"
                )
        theta = theta or rope.get("rope_theta")
    return float(theta or settings.get("rope_theta") or _DEFAULT_THETA)


def _rope(settings: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields the settings of rotary embeddings in the new, the old and the flat spelling."""
    for key in ("rope_parameters", "rope_scaling"):
        rope = settings.get(key) or {}
        if not isinstance(rope, dict) or any(isinstance(value, dict) for value in rope.values()):
            raise UnsupportedError(
                f"{CONFIG_FILE}: {key} is {rope!r}; only one setting for all layers can be computed here"
            )
        yield key, rope
    yield CONFIG_FILE, {"partial_rotary_factor": settings.get("partial_rotary_factor")}


def _require(settings: Mapping[str, Any], key: str, needed: object, absent: object = None) -> None:
    value = settings.get(key)
    value = absent if value is None else value
    if value != needed:
        raise UnsupportedError(f"{CONFIG_FILE}: {key} is {value!r}, but only {needed!r} can be computed here")
