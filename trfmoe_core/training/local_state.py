"""A node's own state on its own disk: named tensors and a JSON object in one safetensors file, for its owner alone."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from trfmoe_core.atomic import sync_folder
from trfmoe_core.errors import RunFolderError
from trfmoe_core.private import private_files

_META_KEY = "trfmoe"


@private_files()
def save_state(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any], *, durable: bool = True) -> None:
    """Replaces the file in one step: a reader sees either the whole old file or the whole new one.

    Args:
        path: The file; its folder is created.
        tensors: By name.
        meta: A JSON object.
        durable: True: the file also survives a crash of the system, for which this waits for the disk.

    Raises:
        RunFolderError: If the folder cannot be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)  # what a kill left may have another mode
        whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(whole, partial, metadata={_META_KEY: json.dumps(dict(meta), sort_keys=True)})
        if durable:
            with partial.open("rb") as file:
                os.fsync(file.fileno())
        partial.replace(path)
        if durable:
            sync_folder(path.parent)
    except (OSError, SafetensorError) as error:
        raise RunFolderError(f"cannot write {path}: {error}; free space, or choose a writable folder") from error


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns the tensors (on the CPU) and the JSON object of a file written by `save_state`.

    Raises:
        RunFolderError: If the file is missing, damaged or of another kind.
    """
    return _load(path, tensors=True)


def load_meta(path: Path) -> dict[str, Any]:
    """Returns only the JSON object of a file written by `save_state`, without reading its tensors.

    Raises:
        RunFolderError: As `load_state`.
    """
    return _load(path, tensors=False)[1]


def _load(path: Path, tensors: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            meta = json.loads((file.metadata() or {})[_META_KEY])
            return {name: file.get_tensor(name) for name in (file.keys() if tensors else ())}, meta
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise RunFolderError(f"cannot read state from {path}: {error!r}; delete it to start without it") from error
