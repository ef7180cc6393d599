"""What a family of stock models says of itself: names of weights, and the way from its settings to ours and back."""

from collections.abc import Mapping
from typing import Any, ClassVar

from trfmoe_core.config.model import ModelConfig
from trfmoe_core.errors import ConfigError
from trfmoe_core.model.stock import settings as read
from trfmoe_core.model.stock.settings import CONFIG_FILE, UnsupportedError
from trfmoe_core.registry import Registry

__all__ = ["FAMILIES", "Family", "UnsupportedError"]


class Family:
    """Base of every family; as it stands it is Llama's layout with experts.

    Attributes:
        architecture: The class of transformers that opens a folder of this family.
        sparse: False: every layer has one dense feed-forward network, which an import turns into experts.
        attention_norm: Name of the norm of attention within a layer.
        moe_norm: Name of the norm of the experts within a layer.
        moe: Name, within a layer, of what holds router and experts in files.
        matrices: Names of the gate, up and down matrices of one expert, or of the dense network.
        parts: Fields of `ModelConfig` whose value is the same in all models of the family. A model of ours that differs
            in one of them cannot be written as this family.
        only: Settings that must have one value, because no other can be computed here; absent means this value.
        theta: Base of the rotary positions where a folder does not say it.
        window: Sliding window where a folder does not say it.
    """

    architecture: ClassVar[str]
    sparse: ClassVar[bool] = False
    attention_norm: ClassVar[str] = "input_layernorm"
    moe_norm: ClassVar[str] = "post_attention_layernorm"
    moe: ClassVar[str] = "mlp"
    matrices: ClassVar[tuple[str, str, str]] = ("gate_proj", "up_proj", "down_proj")
    parts: ClassVar[Mapping[str, Any]] = {}
    only: ClassVar[Mapping[str, Any]] = {}
    theta: ClassVar[float] = 10000.0
    window: ClassVar[int | None] = None

    def shape(self, settings: Mapping[str, Any], context: int) -> dict[str, Any]:
        """Returns the fields of `ModelConfig` that a config.json gives, but for number and width of experts.

        Args:
            settings: The content of config.json.
            context: Tokens a sequence in training.

        Raises:
            UnsupportedError: A setting cannot be computed here.
        """
        read.refuse_foreign(settings, self.architecture)
        for key, needed in {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, **self.only}.items():
            read.require(settings, key, needed)
        read.check_window(settings, context, self.window)
        theta, scaling = read.rope(settings, self.theta)
        width, heads = settings["hidden_size"], settings["num_attention_heads"]
        head_width = settings.get("head_dim") or width // heads
        return {
            "layers": settings["num_hidden_layers"],
            "vocab_size": settings["vocab_size"],
            "width": width,
            "heads": heads,
            "kv_heads": settings.get("num_key_value_heads"),
            "head_dim": None if head_width * heads == width else head_width,
            "context": context,
            "rope_theta": theta,
            "rope_scaling": scaling,
            "norm_eps": settings["rms_norm_eps"],
            "tie_embeddings": settings.get("tie_word_embeddings", False),
            "init_std": settings.get("initializer_range", 0.02),
            **self.parts,
        }

    def experts(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the fields of `ModelConfig` about experts; of a dense family only their width."""
        return {"expert_width": settings["intermediate_size"]}

    def objection(self, config: ModelConfig) -> str | None:
        """Returns the first part of a model of ours that this family does not have; None if it has all."""
        if not self.sparse and config.experts != 1:
            return f"{self.architecture} has no experts"
        default = {name: field.default for name, field in ModelConfig.model_fields.items()}
        for name in ("expert", "attention", "qkv_bias", "norm_position", "normalize_top_k", "shared_width"):
            needed = self.parts.get(name, default[name])
            if getattr(config, name) != needed and name not in self.free_parts():
                return f"model.{name}: {getattr(config, name)}: {self.architecture} has only {needed}"
        return None

    def free_parts(self) -> frozenset[str]:
        """Returns the fields of `ModelConfig` that `stock_settings` can express with any value."""
        return frozenset()

    def stock_settings(self, config: ModelConfig, vocab_size: int, dtype: str) -> dict[str, Any]:
        """Returns the content of the config.json of a model of ours, which `objection` accepts."""
        of_experts = {"num_experts_per_tok": config.top_k, "router_aux_loss_coef": config.balance_weight}
        rope = {"rope_type": "default", "rope_theta": config.rope_theta, **read.stock_scaling(config.rope_scaling)}
        return {
            "architectures": [self.architecture],
            "vocab_size": vocab_size,
            "hidden_size": config.width,
            "intermediate_size": config.expert_width,
            "num_hidden_layers": config.layers,
            "num_attention_heads": config.heads,
            "num_key_value_heads": config.num_kv_heads,
            "head_dim": config.head_width,
            "max_position_embeddings": config.context,
            "rms_norm_eps": config.norm_eps,
            # transformers 5 reads rope_parameters, older readers rope_theta.
            "rope_theta": config.rope_theta,
            "rope_parameters": rope,
            "tie_word_embeddings": config.tie_embeddings,
            **(of_experts if self.sparse else {}),
            "initializer_range": config.init_std,
            "hidden_act": "silu",
            "sliding_window": None,
            "eos_token_id": None,
            "dtype": dtype,
            "torch_dtype": dtype,
        }


FOREIGN: Mapping[str, str] = {
    "gpt2": "its learned positions, layer norms and biases are no parts of a model here; `trfmoe evaluate` scores it "
    "as it is, and a Llama, Mistral, Qwen or OLMo 2 can be imported",
}
"""Families that are asked for and cannot be computed here -> why not."""
FAMILIES: Registry[type[Family]] = Registry("model_type", "trfmoe_core.model.stock.families")


def family_of(settings: Mapping[str, Any]) -> tuple[str, Family]:
    """Returns the name and the family of a config.json.

    Raises:
        UnsupportedError: It names none that can be computed here.
    """
    name = settings.get("model_type")
    if reason := FOREIGN.get(str(name)):
        raise UnsupportedError(f"{CONFIG_FILE}: model_type is {name!r}, and {reason}")
    if name not in FAMILIES.names():
        raise UnsupportedError(
            f"{CONFIG_FILE}: model_type is {name!r}, but only {', '.join(FAMILIES.names())} can be computed here"
        )
    return str(name), FAMILIES.find(str(name))()


def exporting_family(config: ModelConfig) -> tuple[str, Family]:
    """Returns the name and the family in which a model of ours can be written: the first that has all its parts.

    With one expert a layer every token takes it with weight 1, so the model is dense, and a dense family comes first.

    Raises:
        ConfigError: There is none.
    """
    objections = []
    for name in sorted(
        ("mixtral", *FAMILIES.names()), key=lambda name: config.experts == 1 and FAMILIES.find(name).sparse
    ):
        family = FAMILIES.find(name)()
        objection = family.objection(config)
        if objection is None:
            return name, family
        if family.sparse and objection not in objections:
            objections.append(objection)
    raise ConfigError(
        f"no stock architecture has all parts of this model ({'; '.join(objections)}); train with other parts to "
        "export, or load the checkpoint's weights.safetensors with this code"
    )
