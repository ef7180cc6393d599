"""Reads the settings of stock models: what can be computed here is translated, all else is refused by name."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trfmoe_core.config.model import RopeScaling
from trfmoe_core.errors import RunFolderError

CONFIG_FILE = "config.json"
_STOCK_NAMES = {
    "factor": "factor",
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "original_context": "original_max_position_embeddings",
}


class UnsupportedError(RunFolderError):
    """A setting that cannot be computed here; the message names it."""


def read_object(path: Path) -> dict[str, Any]:
    """Returns the JSON object in a file.

    Raises:
        OSError: It cannot be read.
        UnsupportedError: It is no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UnsupportedError(f"{path.name} is no JSON ({error})") from error
    if not isinstance(value, dict):
        raise UnsupportedError(f"{path.name} holds a {type(value).__name__}, not an object")
    return value


def require(settings: Mapping[str, Any], key: str, needed: object) -> None:
    """Refuses another value than the needed one; an absent one and null stand for it.

    Raises:
        UnsupportedError: It is another.
    """
    value = settings.get(key)
    if value is not None and value != needed:
        raise UnsupportedError(f"{CONFIG_FILE}: {key} is {value!r}, but only {needed!r} can be computed here")


def refuse_foreign(settings: Mapping[str, Any], architecture: str) -> None:
    """Refuses quantized weights, models with code of their own, and models with another head.

    Raises:
        UnsupportedError: It is one of these.
    """
    if "quantization_config" in settings:
        quantization = settings["quantization_config"] or {}
        method = quantization.get("quant_method", "unknown method") if isinstance(quantization, dict) else quantization
        raise UnsupportedError(f"the weights are quantized ({method}); save them as bfloat16 or float32 first")
    if settings.get("auto_map"):
        raise UnsupportedError(f"{CONFIG_FILE}: auto_map: the model needs code of its own, which is never run")
    require(settings, "architectures", [architecture])


def check_window(settings: Mapping[str, Any], context: int, default: int | None) -> None:
    """Refuses a sliding window that is shorter than a training sequence, in any layer.

    Raises:
        UnsupportedError: It is shorter, or a layer has another kind of attention.
    """
    kinds = set(settings.get("layer_types") or ())
    if kinds - {"full_attention", "sliding_attention"}:
        raise UnsupportedError(
            f"{CONFIG_FILE}: layer_types has {sorted(kinds)}, but only full and sliding attention can be computed here"
        )
    if settings.get("use_sliding_window") is False and "sliding_attention" not in kinds:
        return
    window = settings.get("sliding_window", default)
    if window and window < context:
        raise UnsupportedError(
            f"{CONFIG_FILE}: sliding_window is {window}, below the context of {context}, and cannot be computed here; "
            f"import with --context {window} or less"
        )


def rope(settings: Mapping[str, Any], default: float) -> tuple[float, RopeScaling | None]:
    """Returns base and stretching of the rotary positions, from their new, old or flat spelling.

    Raises:
        UnsupportedError: They are of a kind that cannot be computed here.
    """
    theta, scaling = None, None
    for key in ("rope_parameters", "rope_scaling"):
        found = settings.get(key) or {}
        if not isinstance(found, dict) or any(isinstance(value, dict) for value in found.values()):
            raise UnsupportedError(
                f"{CONFIG_FILE}: {key} is {found!r}; only one setting for all layers can be computed here"
            )
        _require_whole(key, found)
        theta = theta or found.get("rope_theta")
        scaling = scaling or _scaling(key, found)
    _require_whole(CONFIG_FILE, settings)
    return float(theta or settings.get("rope_theta") or default), scaling


def _require_whole(key: str, found: Mapping[str, Any]) -> None:
    if found.get("partial_rotary_factor") not in (None, 1, 1.0):
        raise UnsupportedError(
            f"{CONFIG_FILE}: {key}: partial_rotary_factor is {found['partial_rotary_factor']!r}, but only 1 can be "
            "computed here"
        )


def _scaling(key: str, found: Mapping[str, Any]) -> RopeScaling | None:
    kind = found.get("rope_type", found.get("type", "default"))
    if kind == "default":
        if found.get("factor") not in (None, 1, 1.0):
            raise UnsupportedError(
                f"{CONFIG_FILE}: {key}: factor is {found['factor']!r}, but with rope_type 'default' only 1 can be "
                "computed here"
            )
        return None
    if kind not in ("linear", "llama3"):
        raise UnsupportedError(
            f"{CONFIG_FILE}: {key}: rope_type is {kind!r}, but only 'default', 'linear' and 'llama3' can be computed "
            "here"
        )
    names = _STOCK_NAMES if kind == "llama3" else {"factor": "factor"}
    missing = [theirs for theirs in names.values() if theirs not in found]
    if missing:
        raise UnsupportedError(f"{CONFIG_FILE}: {key}: rope_type is {kind!r}, but {', '.join(missing)} is missing")
    values = {ours: float(found[theirs]) for ours, theirs in names.items()}
    if kind == "llama3":
        values["original_context"] = found[_STOCK_NAMES["original_context"]]
    return RopeScaling.model_validate({"kind": kind, **values})


def stock_scaling(scaling: RopeScaling | None) -> dict[str, Any]:
    """Returns the keys of `rope_parameters` that express a stretching."""
    if scaling is None:
        return {}
    names = _STOCK_NAMES if scaling.kind == "llama3" else {"factor": "factor"}
    return {"rope_type": scaling.kind, **{theirs: getattr(scaling, ours) for ours, theirs in names.items()}}
