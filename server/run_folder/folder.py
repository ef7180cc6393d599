"""One folder a run: recipe, journal, checkpoints, tokenizer, report. One coordinator at a time writes it."""

import fcntl
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import yaml

from server.run_folder.facts import RunFacts
from trfmoe_core.atomic import write_bytes, write_text
from trfmoe_core.config import Recipe, load_recipe, recipe_hash
from trfmoe_core.config.yaml_text import dump_yaml, load_yaml
from trfmoe_core.errors import RunFolderError

_LOCK_PATIENCE_S = 15.0


class RunFolder:
    """An existing run folder."""

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self.path = path
        self.recipe = recipe
        self._facts: RunFacts | None = None

    def facts(self) -> RunFacts:
        """Returns the facts of the journal. Only entries since the last call are read.

        Raises:
            RunFolderError: the journal cannot be read.
        """
        if self._facts is None:
            self._facts = RunFacts(self.events_path)
        return self._facts.follow()

    @classmethod
    def create(cls, root: Path, recipe: Recipe) -> Self:
        """Returns a new folder `<root>/<name>-<number>` with the recipe in it.

        Raises:
            RunFolderError: when it cannot be made.
        """
        try:
            root.mkdir(parents=True, exist_ok=True)
            number = max(_numbers(root, recipe.name), default=0) + 1
            while True:
                path = root / f"{recipe.name}-{number:03d}"
                try:
                    path.mkdir()
                    break
                except FileExistsError:
                    number += 1
            folder = cls(path, recipe)
            folder.write_recipe(recipe)
        except OSError as error:
            raise RunFolderError(
                f"run_root {root}: no run folder can be made there ({error.strerror or error}); "
                "choose another with --set run_root=DIR"
            ) from error
        return folder

    @classmethod
    def open(cls, path: Path) -> Self:
        """Returns an existing run folder.

        Raises:
            RunFolderError: when `path` is none.
        """
        if not (path / "recipe.yaml").is_file():
            raise RunFolderError(f"{path}: not a run folder (it has no recipe.yaml); give one such as runs/demo-001")
        return cls(path, load_recipe(path / "recipe.yaml"))

    @classmethod
    def latest(cls, root: Path, name: str) -> Self | None:
        """Returns the newest run folder of a recipe's name, if there is one."""
        for number in sorted(_numbers(root, name), reverse=True):
            path = root / f"{name}-{number:03d}"
            if (path / "recipe.yaml").is_file():
                return cls.open(path)
        return None

    @property
    def events_path(self) -> Path:
        """The journal."""
        return self.path / "events.jsonl"

    @property
    def tokenizer_path(self) -> Path:
        """The run's own copy of its tokenizer."""
        return self.path / "tokenizer"

    @property
    def imported_path(self) -> Path:
        """The weights that the run begins with, if they were imported."""
        return self.path / "imported.safetensors"

    def origin(self) -> dict[str, Any]:
        """Returns what the command that made this run was given besides the recipe; empty if nothing was.

        Raises:
            RunFolderError: the file cannot be read.
        """
        path = self.path / "origin.json"
        try:
            origin: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        except (OSError, ValueError) as error:
            raise RunFolderError(f"{path}: cannot be read ({error}); put the run's own file back") from error
        return origin

    def write_origin(self, **origin: Any) -> None:
        """Keeps what the command that makes this run was given besides the recipe."""
        write_text(self.path / "origin.json", json.dumps(origin, ensure_ascii=False, indent=2) + "\n")

    @property
    def imported_settings_path(self) -> Path:
        """What the folder of the imported weights said besides the model's shape."""
        return self.path / "imported.json"

    @property
    def checkpoints_path(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    def witness_salt(self) -> str:
        """Returns the secret that decides the witness's windows: the recipe's, or a random one kept in the run folder.

        The recipe's seed is not used, because the nodes know it and could predict the windows.

        Raises:
            RunFolderError: when it cannot be kept, or not be read again.
        """
        if self.recipe.witness and self.recipe.witness.salt:
            return self.recipe.witness.salt
        path = self.path / "witness.salt"
        try:
            if not path.exists():
                write_bytes(path, secrets.token_hex(16).encode(), mode=0o600)
            salt = path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise RunFolderError(f"{path}: cannot be written or read ({error}); put the run's own file back") from error
        if not salt:
            raise RunFolderError(f"{path}: is empty; put the run's own file back, or start a new run")
        return salt

    def write_recipe(self, recipe: Recipe) -> None:
        """Saves the resolved recipe and its hash."""
        self.recipe = recipe
        text = dump_yaml(recipe.model_dump(mode="json"))
        write_text(self.path / "recipe.sha256", recipe_hash(recipe) + "\n")
        write_text(self.path / "recipe.yaml", text)

    def recipe_digest(self) -> str:
        """Returns the saved recipe's hash as the release computed it that saved the recipe.

        A later release may have more keys, so its hash of the same recipe may differ.

        Raises:
            RunFolderError: the file cannot be read.
        """
        path = self.path / "recipe.yaml"
        try:
            raw = load_yaml(path.read_text(encoding="utf-8"))
            text = json.dumps(raw, sort_keys=True, separators=(",", ":"))
        except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
            raise RunFolderError(f"{path}: cannot be read ({error})") from error
        return hashlib.sha256(text.encode()).hexdigest()

    @contextmanager
    def lock(self, patience_s: float = _LOCK_PATIENCE_S) -> Iterator[None]:
        """Holds the folder for one coordinator; the system frees it when the process ends, however it ends.

        Args:
            patience_s: How long to wait for another process that is just ending.

        Raises:
            RunFolderError: when another process holds it.
        """
        path = self.path / "lock"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise RunFolderError(f"{path}: cannot be opened ({error.strerror})") from error
        try:
            end = time.monotonic() + patience_s
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= end:
                        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
                        raise RunFolderError(
                            f"{self.path}: process {holder or 'unknown'} is writing this run; "
                            "wait for it, stop it, or start a run of its own"
                        ) from None
                    time.sleep(0.2)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def is_locked(self) -> bool:
        """Returns True if a process holds the folder now. Changes nothing."""
        try:
            descriptor = os.open(self.path / "lock", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False


def _numbers(root: Path, name: str) -> list[int]:
    pattern = re.compile(re.escape(name) + r"-(\d{3,})$")
    if not root.is_dir():
        return []
    return [int(match[1]) for entry in root.iterdir() if (match := pattern.match(entry.name))]
