"""Checkpoints: one folder a round, written atomically. The journal's entry `round_committed` commits it."""

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trfmoe_core.atomic import new_folder, remove_folder, sweep
from trfmoe_core.errors import RunFolderError

WEIGHTS, OPTIMIZER, STATE = "weights.safetensors", "outer.safetensors", "state.json"
WEIGHTS_HEADER = f"{WEIGHTS} (header)"
"""Names, types and shapes of the weights. The weights' own digest is over values alone, in the order of names."""

_NAME = re.compile(r"round-([0-9]{6,})")
_LENGTH = 8
"""Bytes at the beginning of a safetensors file that hold the length of its header."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The result of one round: model weights by parameter name, optimizer tensors, and what else a resume needs."""

    round: int
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]


def save_checkpoint(
    root: Path,
    round_number: int,
    weights: Mapping[str, Tensor],
    optimizer: Mapping[str, Tensor],
    state: Mapping[str, Any],
) -> dict[str, str]:
    """Writes `<root>/round-000007`, in place of an uncommitted checkpoint of that round.

    Args:
        root: The folder of all checkpoints.
        round_number: The round.
        weights: The model, by parameter name.
        optimizer: The outer optimizer's tensors, by name.
        state: What else the next round starts from; JSON values.

    Returns:
        Its `file_digests`. The digest of the weights' values is in `state`.

    Raises:
        RunFolderError: It cannot be written. The earlier checkpoints stay.
    """
    path = checkpoint_path(root, round_number)
    try:
        with new_folder(path) as folder:
            save_file(_contiguous(weights), folder / WEIGHTS)
            save_file(_contiguous(optimizer), folder / OPTIMIZER)
            (folder / STATE).write_text(json.dumps(state), encoding="utf-8")
            files = file_digests(folder)
    except (OSError, SafetensorError) as error:
        raise RunFolderError(
            f"{path}: cannot be written ({error}); free space and go on with --resume{_saved(root, round_number)}"
        ) from error
    return files


def file_digests(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of a checkpoint's files, of the weights only that of the file's header."""
    with (folder / WEIGHTS).open("rb") as file:
        head = file.read(_LENGTH)
        found = {WEIGHTS_HEADER: hashlib.sha256(head + file.read(int.from_bytes(head, "little"))).hexdigest()}
    for name in (OPTIMIZER, STATE):
        with (folder / name).open("rb") as file:
            found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def load_checkpoint(root: Path, round_number: int) -> Checkpoint:
    """Returns a checkpoint.

    Raises:
        RunFolderError: when it is missing or broken.
    """
    path = checkpoint_path(root, round_number)
    try:
        return Checkpoint(
            round=round_number,
            weights=load_file(path / WEIGHTS),
            optimizer=load_file(path / OPTIMIZER),
            state=json.loads((path / STATE).read_text(encoding="utf-8")),
        )
    except (OSError, SafetensorError, ValueError) as error:
        raise RunFolderError(f"{path}: the checkpoint cannot be read ({error})") from error


def checkpoint_state(root: Path, round_number: int) -> dict[str, Any]:
    """Returns what a checkpoint holds besides tensors: the state that the next round starts from.

    Raises:
        RunFolderError: It is missing or broken.
    """
    path = checkpoint_path(root, round_number) / STATE
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path}: cannot be read ({error})") from error


def checkpoint_path(root: Path, round_number: int) -> Path:
    """Returns where the checkpoint of a round lies."""
    return root / f"round-{round_number:06d}"


def checkpoint_rounds(root: Path) -> list[int]:
    """Returns the rounds that have a checkpoint, in order."""
    if not root.is_dir():
        return []
    found = {entry.name: int(match[1]) for entry in root.iterdir() if (match := _NAME.fullmatch(entry.name))}
    return sorted(number for name, number in found.items() if name == checkpoint_path(root, number).name)


def keep_only(root: Path, rounds: Collection[int]) -> None:
    """Removes the checkpoints of all other rounds; each loses its name before its first file.

    Raises:
        RunFolderError: one cannot be removed.
    """
    for number in checkpoint_rounds(root):
        if number not in rounds:
            path = checkpoint_path(root, number)
            try:
                remove_folder(path)
            except OSError as error:
                raise RunFolderError(
                    f"{path}: the old checkpoint cannot be removed ({error.strerror or error}); "
                    f"mend that and go on with --resume{_saved(root)}"
                ) from error


def sweep_checkpoints(root: Path) -> None:
    """Removes what killed commits have left; hold the run folder's lock.

    Raises:
        RunFolderError: something cannot be removed.
    """
    try:
        sweep(root)
    except OSError as error:
        raise RunFolderError(
            f"{root}: what a killed commit has left cannot be removed ({error}); remove it by hand"
        ) from error


def _saved(root: Path, besides: int | None = None) -> str:
    """Returns the end of a message: which checkpoint is there besides one that is being written, if one is."""
    there = [number for number in checkpoint_rounds(root) if number != besides]
    return f"; checkpoint {there[-1]} is safe" if there else "; none was saved before, so it begins again"


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
