"""A folder of made files: it appears at once, is made once, and never takes the place of anything else."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from trfmoe_core.atomic import sync_folder, write_text
from trfmoe_core.errors import DataError
from trfmoe_core.places import expand

_MANIFEST = "sample.json"


def made_folder(root: Path, identity: Mapping[str, object], fill: Callable[[Path], None]) -> Path:
    """Returns the absolute path of a folder that `fill` has made.

    A complete folder of this identity is left as it is, an older or damaged one is replaced.

    Args:
        root: The folder.
        identity: JSON values that determine the files.
        fill: Writes the files into a new folder.

    Raises:
        DataError: `root` has other files or cannot be written.
    """
    root = Path(os.path.abspath(expand(root)))  # noqa: PTH100  (no link may be resolved away)
    try:
        if not _is_whole(root, identity):
            _refuse_foreign(root)
            _make(root, identity, fill)
    except OSError as error:
        raise DataError(f"sample {root}: {error.strerror or error}; choose a folder that can be written") from error
    return root


def _make(root: Path, identity: Mapping[str, object], fill: Callable[[Path], None]) -> None:
    root.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=root.parent, prefix=f".{root.name}.", suffix=".tmp"))
    try:
        new, old = temporary / "new", temporary / "old"
        new.mkdir()
        fill(new)
        files = {path.relative_to(new).as_posix(): path.stat().st_size for path in _files(new)}
        write_text(new / _MANIFEST, json.dumps({**identity, "files": files}, indent=1, sort_keys=True) + "\n")
        if root.is_dir():
            root.rename(old)
        try:
            new.rename(root)
        except OSError:
            # Another process was faster; it built the same.
            if not _is_whole(root, identity):
                raise
        sync_folder(root.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if not path.is_dir())


def _manifest(root: Path) -> dict[str, object] | None:
    try:
        value = json.loads((root / _MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _is_whole(root: Path, identity: Mapping[str, object]) -> bool:
    manifest = _manifest(root)
    if manifest is None or {name: manifest.get(name) for name in identity} != identity:
        return False
    found = {path.relative_to(root).as_posix(): path.stat().st_size for path in _files(root)}
    files = manifest.get("files")
    return isinstance(files, dict) and all(found.get(name) == size_bytes for name, size_bytes in files.items())


def _refuse_foreign(root: Path) -> None:
    """Makes sure that `root` is missing, empty, or has nothing but an older sample.

    Raises:
        DataError: it has other files.
    """
    if not root.exists():
        return
    if not root.is_dir():
        raise DataError(f"sample {root}: is a file; choose a folder")
    manifest = _manifest(root)
    listed = manifest.get("files") if manifest else None
    ours = {_MANIFEST, *listed} if isinstance(listed, dict) else set()
    foreign = [path for path in _files(root) if path.relative_to(root).as_posix() not in ours]
    if foreign:
        raise DataError(f"sample {root}: holds other files, such as {foreign[0]}; choose a new or an empty folder")
