"""Reads a folder of stock transformers as a model of ours."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError

from trfmoe_core.config.model import ModelConfig
from trfmoe_core.errors import ConfigError, RunFolderError
from trfmoe_core.model.stock.families.base import Family, family_of
from trfmoe_core.model.stock.settings import CONFIG_FILE, UnsupportedError, read_object
from trfmoe_core.model.stock.tensors import fill, is_stacked, pieces, refuse_unused
from trfmoe_core.model.stock.upcycling import Upcycling
from trfmoe_core.model.stock.weight_files import WeightFiles
from trfmoe_core.model.transformer import MoETransformer


def import_model(folder: Path, context: int | None = None, upcycling: Upcycling | None = None) -> MoETransformer:
    """Returns a float32 model with the configuration and weights of a folder that transformers opens.

    `kept_settings` returns what else the folder says. Only the model itself and one tensor at a time are in memory.

    Args:
        folder: Holds `config.json` and `*.safetensors`.
        context: Tokens a sequence in training; None takes the folder's `max_position_embeddings`.
        upcycling: How a dense model becomes a mixture; None: as `Upcycling()` says.

    Raises:
        RunFolderError: The folder is incomplete, or holds a model that this code cannot compute.
        ConfigError: `upcycling` does not fit the model, or the model has experts already.
    """
    try:
        settings = read_object(folder / CONFIG_FILE)
        _, family = family_of(settings)
        if family.sparse and upcycling is not None:
            raise ConfigError(f"{folder} has experts already; leave out the options that make experts")
        plan = None if family.sparse else upcycling or Upcycling()
        config = stock_shape(family, settings, context, plan)
        weights = WeightFiles(folder)
        weights.refuse_quantized()
        model = MoETransformer(config, settings["vocab_size"])
        found = plan.pieces(family, config) if plan else pieces(family, config, stacked=is_stacked(weights))
        read = fill(model.named_weights(), found, weights)
        refuse_unused(set(weights), read, config, weights)
        if plan:
            plan.begin(model)
    except UnsupportedError as error:
        raise RunFolderError(f"cannot import {folder}: {error}") from error
    except (OSError, SafetensorError) as error:
        raise RunFolderError(
            f"cannot import {folder}: {_reason(error)}; give a folder with config.json and *.safetensors"
        ) from error
    return model


def stock_shape(
    family: Family, settings: Mapping[str, Any], context: int | None = None, upcycling: Upcycling | None = None
) -> ModelConfig:
    """Returns the shape that a config.json describes.

    Args:
        family: Of its `model_type`.
        settings: The content of config.json.
        context: Tokens a sequence in training; None: `max_position_embeddings`.
        upcycling: Needed for a dense family.

    Raises:
        UnsupportedError: It describes a model that cannot be computed here, or no model.
    """
    try:
        experts = family.experts(settings)
        if upcycling is not None:
            experts |= upcycling.shape(experts["expert_width"])
        shape = family.shape(settings, context or settings["max_position_embeddings"])
        return ModelConfig.model_validate({**shape, **experts})
    except KeyError as error:
        raise UnsupportedError(f"{CONFIG_FILE} does not say {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f"{part}: " for part in first["loc"])
        raise UnsupportedError(f"{CONFIG_FILE}: {place}{first['msg'].removeprefix('Value error, ')}") from error
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise UnsupportedError(f"{CONFIG_FILE}: the sizes are no numbers above 0 ({error})") from error


def _reason(error: Exception) -> str:
    return f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
