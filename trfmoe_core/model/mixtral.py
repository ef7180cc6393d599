"""Exports to and imports from stock Mixtral checkpoints, which transformers, vLLM and llama.cpp read.

Mixtral's tensors have two spellings: *stacked*, that of `MixtralForCausalLM.state_dict()` in transformers 5 (a layer's
experts in one tensor, as here), and *original*, that of its files (`block_sparse_moe.experts.{e}.w1|w2|w3`).

E = experts, D = width, F = hidden width of an expert, G = 2 F.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from trfmoe_core.config.model import ModelConfig
from trfmoe_core.counts import counted
from trfmoe_core.errors import ConfigError, RunFolderError
from trfmoe_core.model.mixtral_settings import (
    CONFIG_FILE,
    GENERATION_FILE,
    KeptSettings,
    UnsupportedError,
    mixtral_config,
    model_config,
    read_object,
)
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
_QUANTIZED = (".qweight", ".qzeros", ".scales", ".g_idx", ".weight_scale", ".weight_scale_inv", ".absmax")
_OTHER_WEIGHTS = (".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack")
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


def from_mixtral_state(state: Mapping[str, Tensor], config: ModelConfig, *, whole: bool = False) -> dict[str, Tensor]:
    """Returns the model's own state dict from Mixtral's tensors in either spelling.

    Args:
        state: The tensors.
        config: The model's.
        whole: True: every tensor must have a place in the model.

    Raises:
        UnsupportedError: If a tensor is missing, does not fit its neighbours, or has no place in the model.
    """
    state = _Watched(state)
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
        raise UnsupportedError(
            f"tensor {error} is missing; this is no Mixtral checkpoint of {config.layers} layers"
        ) from error
    except RuntimeError as error:
        raise UnsupportedError(f"tensors of one layer have different shapes ({str(error).splitlines()[0]})") from error
    if whole:
        _check_unused(state, config)
    return out


class _Watched(dict[str, Tensor]):
    """Tensors that remember which of them were taken."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__(state)
        self.unused = set(state)

    def __getitem__(self, name: str) -> Tensor:
        tensor = super().__getitem__(name)
        self.unused.discard(name)
        return tensor


def _check_unused(state: _Watched, config: ModelConfig) -> None:
    """Refuses tensors that would be ignored."""
    left = sorted(name for name in state.unused if not name.endswith("rotary_emb.inv_freq"))
    if config.tie_embeddings and "lm_head.weight" in left:
        left.remove("lm_head.weight")
        if not torch.equal(state["lm_head.weight"], state["model.embed_tokens.weight"]):
            raise UnsupportedError("lm_head.weight differs from the embedding, though tie_word_embeddings is true")
    if left:
        raise UnsupportedError(
            f"{counted(len(left), 'tensor')} such as {left[0]} have no place in this model of "
            f"{counted(config.layers, 'layer')} without "
            "biases, and leaving them out would change what it computes"
        )


def export_mixtral(
    model: MoETransformer,
    config: ModelConfig,
    tokenizer: "Tokenizer",
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    kept: KeptSettings | None = None,
) -> None:
    """Writes a folder that `MixtralForCausalLM.from_pretrained` opens offline.

    Args:
        model: The model; it stays as it is.
        config: The model's.
        tokenizer: Its files are written too.
        folder: Where to; it is created.
        dtype: Type of the weights in the folder.
        kept: What the folder said from which the model was imported. None: the model was made here, and the token
            that begins the next piece ends a text.

    Raises:
        ConfigError: If the model has parts that Mixtral does not have.
        RunFolderError: If the folder cannot be written.
    """
    shape = mixtral_config(config, model.vocab_size, str(dtype).removeprefix("torch."))
    if kept is None:
        ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.bos_id}
        kept = KeptSettings(ids, ids)
    settings = {**shape, "bos_token_id": tokenizer.bos_id, "eos_token_id": None, **kept.config}
    settings["max_position_embeddings"] = max(config.context, settings["max_position_embeddings"])
    tensors = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in to_mixtral_state(model).items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer.save(folder)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        for name, values in ((CONFIG_FILE, settings), (GENERATION_FILE, kept.generation)):
            if values is not None:
                (folder / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        # Safetensors writes for the owner alone; the server of a model often runs under another account.
        (folder / "model.safetensors").chmod((folder / CONFIG_FILE).stat().st_mode)
    except (OSError, SafetensorError) as error:
        raise RunFolderError(f"cannot export to {folder}: {error}; choose a writable folder") from error


def import_mixtral(folder: Path, context: int | None = None) -> MoETransformer:
    """Returns a float32 model with the configuration and weights of a Mixtral-format folder.

    `kept_settings` returns what else the folder says.

    Args:
        folder: Holds `config.json` and `*.safetensors`.
        context: Tokens a sequence; None takes the checkpoint's `max_position_embeddings`.

    Raises:
        RunFolderError: If the folder is incomplete, or holds a model that this code cannot compute.
    """
    try:
        settings = read_object(folder / CONFIG_FILE)
        config = model_config(settings, context)
        state = from_mixtral_state(_read_tensors(folder), config, whole=True)
        model = build_model(config, settings["vocab_size"], 0)
        for name, tensor in model.state_dict().items():
            if state[name].shape != tensor.shape:
                raise UnsupportedError(
                    f"{name} has the shape {list(state[name].shape)}, and by {CONFIG_FILE} it is {list(tensor.shape)}"
                )
        model.load_state_dict(state)
    except UnsupportedError as error:
        raise RunFolderError(f"cannot import {folder}: {error}") from error
    except (OSError, SafetensorError) as error:
        raise RunFolderError(
            f"cannot import {folder}: {_reason(error)}; give a folder with config.json and *.safetensors of a Mixtral"
        ) from error
    return model


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    """Returns all tensors of a folder in float32, from the files that transformers would take.

    Raises:
        UnsupportedError: there are none, or they are quantized.
    """
    state: dict[str, Tensor] = {}
    for path in _weight_files(folder):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                tensor = file.get_tensor(name)
                if name.endswith(_QUANTIZED) or not tensor.is_floating_point() or tensor.element_size() < 2:
                    raise UnsupportedError(
                        f"{path.name}: {name} is quantized ({str(tensor.dtype).removeprefix('torch.')}); "
                        "save the weights as bfloat16 or float32 first"
                    )
                state[name] = tensor.float()
    return state


def _weight_files(folder: Path) -> list[Path]:
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if index.is_file():
        places = read_object(index).get("weight_map")
        if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
            raise UnsupportedError(f"{index.name} has no weight_map of file names")
        return [folder / Path(name).name for name in sorted(set(places.values()))]
    found = sorted(folder.glob("*.safetensors"))
    if any(path.name.startswith("adapter_") for path in found) or (folder / "adapter_config.json").is_file():
        raise UnsupportedError("it holds an adapter (LoRA), not a model; merge it into its model first")
    if not found:
        others = sorted(path.name for path in folder.iterdir() if path.suffix in _OTHER_WEIGHTS)
        raise UnsupportedError(
            f"it holds {', '.join(others[:3])} and no *.safetensors, and opening a pickle may run code; convert it: "
            "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW)"
            if others
            else "it holds no weights (*.safetensors)"
        )
    return found


def _reason(error: Exception) -> str:
    return f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)


def _qkv_rows(config: ModelConfig) -> list[int]:
    return [heads * config.head_width for heads in (config.heads, config.num_kv_heads, config.num_kv_heads)]
