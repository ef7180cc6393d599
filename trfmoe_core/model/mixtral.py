"""Exports to and imports from stock Mixtral checkpoints, which transformers, vLLM and llama.cpp read.

Mixtral's tensors have two spellings: *stacked*, that of `MixtralForCausalLM.state_dict()` in transformers 5 (a layer's
experts in one tensor, as here), and *original*, that of its files (`block_sparse_moe.experts.{e}.w1|w2|w3`).

E = experts, D = width, F = hidden width of an expert, G = 2 F.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from trfmoe_core.config.model import ModelConfig
from trfmoe_core.errors import ConfigError, RunFolderError
from trfmoe_core.model.transformer import MoETransformer, build_model

if TYPE_CHECKING:
    from trfmoe_core.data.tokenizers import Tokenizer

_WHOLE = {
    "embedding.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "head.weight": "lm_head.weight",
}
_IN_LAYER = {
    "attention_norm.weight": "input_layernorm.weight",
    "moe_norm.weight": "post_attention_layernorm.weight",
    "attention.output.weight": "self_attn.o_proj.weight",
}
_STACKED = {
    "router.weight": "mlp.gate.weight",
    "experts.w_gate_up_EGD": "mlp.experts.gate_up_proj",
    "experts.w_down_EDF": "mlp.experts.down_proj",
}
_LAYER = re.compile(r"layers\.(\d+)\.(.+)")


def to_mixtral_state(
    state: MoETransformer | Mapping[str, Tensor], config: ModelConfig | None = None, *, stacked: bool = False
) -> dict[str, Tensor]:
    """Returns tensors by Mixtral's names. They are views if the layout allows.

    A tied head is left out, as in transformers' files.

    Args:
        state: A model, or tensors by its parameter names (weights, gradients or moments).
        config: The model's; needed with a mapping.
        stacked: True: transformers' in-memory spelling; False: the original one.

    Raises:
        ConfigError: If the config is missing.
    """
    if isinstance(state, MoETransformer):
        config, state = state.config, state.state_dict()
    if config is None:
        raise ConfigError("to_mixtral_state got tensors without the model's config; pass config")
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
        match = _LAYER.fullmatch(name)
        if match is None:
            if not (name == "head.weight" and config.tie_embeddings):
                out[_WHOLE[name]] = tensor
            continue
        prefix, part = f"model.layers.{match[1]}.", match[2]
        if part == "attention.qkv.weight":
            for letter, rows in zip("qkv", tensor.split(_qkv_rows(config)), strict=True):
                out[f"{prefix}self_attn.{letter}_proj.weight"] = rows
        elif part in _IN_LAYER:
            out[prefix + _IN_LAYER[part]] = tensor
        elif stacked:
            out[prefix + _STACKED[part]] = tensor
        elif part == "router.weight":
            out[f"{prefix}block_sparse_moe.gate.weight"] = tensor
        else:
            for e, expert in enumerate(tensor):
                matrices = (
                    {"w2": expert}
                    if part == "experts.w_down_EDF"
                    else dict(zip(("w1", "w3"), expert.chunk(2), strict=True))
                )
                out |= {f"{prefix}block_sparse_moe.experts.{e}.{w}.weight": matrix for w, matrix in matrices.items()}
    return out


def from_mixtral_state(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Returns the model's own state dict from Mixtral's tensors in either spelling.

    Raises:
        RunFolderError: If a tensor is missing.
    """
    try:
        out = {ours: state[theirs] for ours, theirs in _WHOLE.items() if ours != "head.weight"}
        out["head.weight"] = out["embedding.weight"] if config.tie_embeddings else state["lm_head.weight"]
        for layer in range(config.layers):
            theirs, ours = f"model.layers.{layer}.", f"layers.{layer}."
            out |= {ours + a: state[theirs + b] for a, b in _IN_LAYER.items()}
            out[f"{ours}attention.qkv.weight"] = torch.cat([state[f"{theirs}self_attn.{c}_proj.weight"] for c in "qkv"])
            if f"{theirs}mlp.gate.weight" in state:
                out |= {ours + a: state[theirs + b] for a, b in _STACKED.items()}
                continue
            moe = f"{theirs}block_sparse_moe."
            gate_up = [
                torch.cat([state[f"{moe}experts.{e}.{w}.weight"] for w in ("w1", "w3")]) for e in range(config.experts)
            ]
            down = [state[f"{moe}experts.{e}.w2.weight"] for e in range(config.experts)]
            out[f"{ours}router.weight"] = state[f"{moe}gate.weight"]
            out[f"{ours}experts.w_gate_up_EGD"], out[f"{ours}experts.w_down_EDF"] = (
                torch.stack(gate_up),
                torch.stack(down),
            )
    except KeyError as error:
        raise RunFolderError(
            f"tensor {error} is missing; this is no Mixtral checkpoint of {config.layers} layers"
        ) from error
    return out


def export_mixtral(model: MoETransformer, config: ModelConfig, tokenizer: "Tokenizer", folder: Path) -> None:
    """Writes a folder that `MixtralForCausalLM.from_pretrained` opens offline.

    Args:
        model: The model; its weights keep their type.
        config: The model's.
        tokenizer: Its files are written too.
        folder: Where to; it is created.

    Raises:
        ConfigError: If the model has parts that Mixtral does not have.
        RunFolderError: If the folder cannot be written.
    """
    dtype = str(model.embedding.weight.dtype).removeprefix("torch.")
    settings = {**mixtral_config(config, model.vocab_size, dtype), "bos_token_id": tokenizer.bos_id}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in to_mixtral_state(model).items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer.save(folder)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        # Safetensors writes for the owner alone; the server of a model often runs under another account.
        (folder / "model.safetensors").chmod((folder / "config.json").stat().st_mode)
    except (OSError, SafetensorError) as error:
        raise RunFolderError(f"cannot export to {folder}: {error}; choose a writable folder") from error


def import_mixtral(folder: Path, context: int | None = None) -> MoETransformer:
    """Returns a float32 model with the configuration and weights of a Mixtral-format folder.

    Args:
        folder: Holds `config.json` and `*.safetensors`.
        context: Tokens a sequence; None takes the checkpoint's `max_position_embeddings`.

    Raises:
        RunFolderError: If the folder is incomplete, or holds a model that this code cannot compute.
    """
    try:
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config = _model_config(settings, context)
        state: dict[str, Tensor] = {}
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                state |= {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        model = build_model(config, settings["vocab_size"], 0)
        model.load_state_dict(from_mixtral_state(state, config))
    except (OSError, SafetensorError, json.JSONDecodeError, KeyError, ValidationError) as error:
        raise RunFolderError(
            f"cannot import {folder}: {_reason(error)}; give a folder with config.json and *.safetensors of a Mixtral"
        ) from error
    return model


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


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}"
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def _qkv_rows(config: ModelConfig) -> list[int]:
    return [heads * config.head_width for heads in (config.heads, config.num_kv_heads, config.num_kv_heads)]


def _model_config(settings: Mapping[str, Any], context: int | None) -> ModelConfig:
    rope = settings.get("rope_parameters") or {}
    head_width = settings.get("head_dim") or settings["hidden_size"] // settings["num_attention_heads"]
    wanted = {
        "model_type": (settings.get("model_type"), "mixtral"),
        "rope_type": (rope.get("rope_type", "default"), "default"),
        "sliding_window": (settings.get("sliding_window"), None),
        "hidden_act": (settings.get("hidden_act", "silu"), "silu"),
        "head_dim": (head_width, settings["hidden_size"] // settings["num_attention_heads"]),
    }
    for key, (value, needed) in wanted.items():
        if value != needed:
            raise RunFolderError(f"config.json: {key} is {value!r}, but only {needed!r} can be computed here")
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
        rope_theta=float(rope.get("rope_theta", settings.get("rope_theta", 1e6))),
        norm_eps=settings["rms_norm_eps"],
        tie_embeddings=settings.get("tie_word_embeddings", False),
        init_std=settings.get("initializer_range", 0.02),
        balance="pooled",
        balance_weight=settings.get("router_aux_loss_coef", 0.001),
    )
