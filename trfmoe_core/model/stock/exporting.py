"""Writes a model of ours as a folder of stock transformers: in the first family that has all its parts."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from trfmoe_core.config.model import ModelConfig
from trfmoe_core.errors import RunFolderError
from trfmoe_core.model.stock.families.base import exporting_family
from trfmoe_core.model.stock.kept import GENERATION_FILE, KeptSettings
from trfmoe_core.model.stock.settings import CONFIG_FILE
from trfmoe_core.model.stock.tensors import to_stock
from trfmoe_core.model.transformer import MoETransformer

if TYPE_CHECKING:
    from trfmoe_core.data.tokenizers import Tokenizer

_ROW_ELEMENTS = 8


def stock_config(config: ModelConfig, vocab_size: int, dtype: str = "float32") -> dict[str, Any]:
    """Returns the content of the config.json of a model of ours.

    Raises:
        ConfigError: No stock architecture has all its parts.
    """
    name, family = exporting_family(config)
    return {"model_type": name, **family.stock_settings(config, vocab_size, dtype)}


def stock_state(model: MoETransformer, *, stacked: bool = False) -> dict[str, torch.Tensor]:
    """Returns a model's weights by the names of its stock family; they are views.

    Args:
        model: Of ours.
        stacked: True: transformers' in-memory spelling; False: that of files.
    """
    return to_stock(exporting_family(model.config)[1], model.config, model.state_dict(), stacked=stacked)


def export_model(
    model: MoETransformer,
    tokenizer: "Tokenizer",
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    kept: KeptSettings | None = None,
) -> None:
    """Writes a folder that `AutoModelForCausalLM.from_pretrained` opens offline.

    Args:
        model: The model; it stays as it is.
        tokenizer: Its files are written too.
        folder: Where to; it is created.
        dtype: Type of the weights in the folder.
        kept: What the folder said from which the model was imported. None: the model was made here, and the token
            that begins the next piece ends a text.

    Raises:
        ConfigError: No stock architecture has all parts of the model.
        RunFolderError: The folder cannot be written.
    """
    shape = stock_config(model.config, model.vocab_size, str(dtype).removeprefix("torch."))
    if kept is None:
        ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.bos_id}
        kept = KeptSettings(ids, ids)
    settings = {**shape, "bos_token_id": tokenizer.bos_id, "eos_token_id": None, "pad_token_id": None, **kept.config}
    settings["max_position_embeddings"] = max(model.config.context, settings["max_position_embeddings"])
    tensors = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in stock_state(model).items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer.save(folder)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        files: tuple[tuple[str, Mapping[str, Any] | None], ...] = (
            (CONFIG_FILE, settings),
            (GENERATION_FILE, kept.generation),
        )
        for name, values in files:
            if values is not None:
                (folder / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        # Safetensors writes for the owner alone; the server of a model often runs under another account.
        (folder / "model.safetensors").chmod((folder / CONFIG_FILE).stat().st_mode)
    except (OSError, SafetensorError) as error:
        raise RunFolderError(f"cannot export to {folder}: {error}; choose a writable folder") from error


def export_remarks(config: ModelConfig) -> list[str]:
    """Returns what stock transformers will not do with an export of a model of this shape.

    Its grouped kernel wants the rows of an expert's matrices to be multiples of 16 bytes.
    """
    if config.expert != "swiglu":
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
