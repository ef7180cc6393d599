"""The inputs of a run: recorded in `run_started`, compared at a resume, and checked by `trfmoe verify`."""

import hashlib
import platform
from pathlib import Path
from typing import Any

import torch

from server.run_folder.folder import RunFolder
from server.run_folder.journal import Event
from server.run_folder.models import FROZEN_REMEDY, run_tokenizer
from trfmoe_core.atomic import new_folder, sweep
from trfmoe_core.data.tokenizers import Tokenizer
from trfmoe_core.errors import RunFolderError
from trfmoe_core.fingerprint import code_fingerprint
from trfmoe_core.model.frozen import FrozenPart

JOURNAL_SCHEMA = 1
"""Version of docs/journal.md, which names every event and field of a journal."""

_FIXED = {
    "witness_salt": (
        "witness.salt: not the secret that this run began with, so a witness would now judge by other text; "
        "put the run's own file (or witness.salt of the recipe) back, or start a new run"
    ),
    "tokenizer_fingerprint": (
        "data.tokenizer: not the tokenizer that this run began with; put it back, or start a new run"
    ),
    "imported_weights": (
        "imported.safetensors: not the weights that this run began with; put the file back, or import again"
    ),
    "frozen_digest": FROZEN_REMEDY,
}
"""What must not change within a run, with the message for the case that it did."""


def provenance(
    folder: RunFolder, tokenizer: Tokenizer, frozen: FrozenPart | None = None, salt: str = "", **versions: str
) -> dict[str, Any]:
    """Returns the fields of `run_started` that say what the run is started with.

    Args:
        folder: The run; it gets its own copy of the tokenizer if it has none.
        tokenizer: The one that is used.
        frozen: The weights that are never trained, if there are any.
        salt: The witness's secret, if there is a witness.
        versions: Of libraries, besides Python's and torch's.

    Raises:
        RunFolderError: A file cannot be read, or the folder holds a copy of another tokenizer.
    """
    if not folder.tokenizer_path.exists():
        _keep_tokenizer(folder, tokenizer)
    if run_tokenizer(folder).fingerprint != tokenizer.fingerprint:
        raise RunFolderError(f"{folder.tokenizer_path}: not the same as the recipe's data.tokenizer; put it back")
    return {
        "journal_schema": JOURNAL_SCHEMA,
        "recipe_hash": folder.recipe_digest(),
        "code_fingerprint": code_fingerprint(),
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "tokenizer_files": tokenizer_files(folder),
        "imported_weights": file_digest(folder.imported_path) if folder.imported_path.exists() else None,
        "frozen_digest": frozen.digest if frozen else None,
        "witness_salt": hashlib.sha256(salt.encode()).hexdigest() if salt else None,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, **versions},
    }


def _keep_tokenizer(folder: RunFolder, tokenizer: Tokenizer) -> None:
    """Writes the run's own copy in one step: of half a copy no later start could read anything."""
    path = folder.tokenizer_path
    try:
        sweep(folder.path)
        with new_folder(path) as made:
            tokenizer.save(made)
    except OSError as error:
        raise RunFolderError(
            f"{path}: the tokenizer cannot be copied there ({error.strerror or error}); mend that and go on "
            "with --resume"
        ) from error


def check_resumed(folder: RunFolder, first: Event, now: dict[str, Any]) -> None:
    """Checks what must not change within a run. Runs of earlier releases did not record all of it.

    Raises:
        RunFolderError: something has changed since the run's first start.
    """
    for name, remedy in _FIXED.items():
        if name in first and first[name] != now[name]:
            raise RunFolderError(f"{folder.path}: {remedy}")


def changes(last: Event, now: dict[str, Any]) -> list[str]:
    """Returns one sentence for each change that a resume allows although it can affect the results."""
    found = []
    if last.get("code_fingerprint", now["code_fingerprint"]) != now["code_fingerprint"]:
        old, new = str(last["code_fingerprint"])[:12], now["code_fingerprint"][:12]
        found.append(f"the run goes on with other code than before: {old} then, {new} now")
    before = last.get("versions") or {}
    for name, version in now["versions"].items():
        if before.get(name, version) != version:
            found.append(f"the run goes on with another version of {name}: {before[name]} then, {version} now")
    return found


def tokenizer_files(folder: RunFolder) -> dict[str, str]:
    """Returns the SHA-256 of every file of the run's own copy of its tokenizer.

    Raises:
        RunFolderError: one cannot be read.
    """
    paths = [path for path in sorted(folder.tokenizer_path.rglob("*")) if not path.is_dir()]
    return {path.relative_to(folder.tokenizer_path).as_posix(): file_digest(path) for path in paths}


def file_digest(path: Path) -> str:
    """Returns the SHA-256 of a file.

    Raises:
        RunFolderError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be read ({error.strerror or error})") from error
