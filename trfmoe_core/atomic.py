"""Files that are whole or not there at all, whatever happens to the process."""

import ctypes
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_LEFT = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{32}\.(?P<kind>tmp|old|del)")


def write_bytes(path: Path, data: bytes, mode: int | None = None) -> None:
    """Writes a file under a temporary name, syncs it and renames it; missing parent folders are made.

    Args:
        path: The file; an existing one is replaced.
        data: What it shall hold.
        mode: Its permissions, from before the first byte is written; what the system gives when absent.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 file as `write_bytes` does."""
    write_bytes(path, text.encode())


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder that becomes `path` when the block ends without an error, and vanishes otherwise.

    An existing `path` is replaced in one step where the system can, so that it names the old or the new at any instant.
    What is written inside is synced before. What a killed process has left is removed by `sweep`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path, "tmp")
    temporary.mkdir()
    try:
        yield temporary
        for entry in temporary.rglob("*"):
            if entry.is_file():
                with entry.open("rb") as handle:
                    os.fsync(handle.fileno())
            elif entry.is_dir():
                sync_folder(entry)
        sync_folder(temporary)
        if os.path.lexists(path):
            _swap(temporary, path)
        else:
            temporary.replace(path)
        sync_folder(path.parent)
    finally:
        _remove(temporary)


def remove_folder(path: Path) -> None:
    """Removes a folder; killed on the way, it leaves nothing under the folder's name, and the rest is for `sweep`.

    Raises:
        OSError: it cannot be removed.
    """
    aside = _beside(path, "del")
    path.rename(aside)
    sync_folder(path.parent)
    shutil.rmtree(aside)


def sweep(folder: Path) -> None:
    """Puts back what a killed `new_folder` had moved aside, and removes all else that it or `remove_folder` left.

    Nobody else may be at work in `folder`.

    Raises:
        OSError: something cannot be removed.
    """
    if not folder.is_dir():
        return
    for entry in sorted(folder.iterdir()):
        match = _LEFT.fullmatch(entry.name)
        if match is None:
            continue
        if match["kind"] == "old" and not os.path.lexists(folder / match["name"]):
            entry.rename(folder / match["name"])
        elif entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _beside(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{uuid4().hex}.{kind}")


def _swap(new: Path, path: Path) -> None:
    """Puts `new` in the place of `path`, and removes what was there."""
    if _exchanged(new, path):
        return  # `new` names the old one now
    aside = _beside(path, "old")
    path.rename(aside)
    try:
        new.rename(path)
    except BaseException:
        aside.rename(path)
        raise
    _remove(aside)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchanges two names in one step, by Linux's renameat2; False where the system or the file system cannot."""
    exchange = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if exchange is None:
        return False
    return bool(exchange(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on the file `path`, which is made; it ends with the process, however that ends."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Makes renames inside a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
