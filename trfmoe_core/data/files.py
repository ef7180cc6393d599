"""Which files a node's data consists of, what they are, and what became of them."""

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from trfmoe_core.errors import DataError

Status = Literal[
    "ok",
    "partial",
    "no-text",
    "needs-password",
    "broken",
    "timeout",
    "too-large",
    "not-a-pdf",
    "unsupported",
    "empty",
    "unreadable",
    "duplicate",
]
Kind = Literal["pdf", "parquet", "jsonl", "text", "other"]

KINDS: dict[str, Kind] = {".pdf": "pdf", ".parquet": "parquet", ".jsonl": "jsonl", ".txt": "text", ".md": "text"}
_HASH_BYTES = 1 << 20


@dataclass(frozen=True)
class FileReport:
    """What happened to one file.

    Attributes:
        path: where it lies, safe to print (`printable`).
        kind: pdf, parquet, jsonl, text or other.
        status: `ok`, `partial` (some of its text was lost, see `detail`), or why there is no text of it.
        pages: pages of a PDF that gave text, documents of any other kind.
        characters: characters of text after cleaning.
        detail: the reason in words; empty for `ok` files without anything to say.
    """

    path: str
    kind: Kind
    status: Status
    pages: int = 0
    characters: int = 0
    detail: str = ""


@dataclass(frozen=True)
class SourceFile:
    """One file to read (`report` is None), or one that is not read, with the report that says why."""

    path: Path
    kind: Kind
    sha256: str = ""
    report: FileReport | None = None


def printable(path: Path | str) -> str:
    """Returns the path with control characters and undecodable bytes escaped, so that it fits on one line."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in str(path)
    )


def find_files(paths: Sequence[str]) -> list[SourceFile]:
    """Returns every file below `paths` once, in the order given, folders walked in sorted order.

    Only regular files are opened. Links that lead out of a folder, other file types and other suffixes are reported as
    `unsupported`; files with the bytes of an earlier one as `duplicate`.

    Raises:
        DataError: no paths, or one that is missing, unreadable, or no file of a kind that can be read.
    """
    if not paths:
        raise DataError("no data: the list of files and folders is empty; name at least one")
    found: list[SourceFile] = []
    seen: dict[tuple[Kind, str], Path] = {}
    for name in paths:
        for file in _below(Path(name).expanduser()):
            if file.report is None:
                first = seen.setdefault((file.kind, file.sha256), file.path)
                if first is not file.path:
                    file = _refused(file.path, file.kind, "duplicate", f"same bytes as {printable(first)}")
            found.append(file)
    return found


def _below(root: Path) -> Iterator[SourceFile]:
    where = f"data path {printable(root)}"
    try:
        mode = root.stat().st_mode
    except FileNotFoundError as error:
        raise DataError(f"{where}: no such file or folder{_nearest(root)}; correct the path") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{where}: cannot be read: {_reason(error)}; check its permissions") from error
    if stat.S_ISDIR(mode):
        yield from _walk(root)
        return
    file = _examine(root)
    if file.report is not None and file.report.status in ("unsupported", "unreadable"):
        raise DataError(
            f"{where}: {file.report.status}: {file.report.detail}; give a readable file ending in {', '.join(KINDS)}"
        )
    yield file


def _walk(root: Path) -> Iterator[SourceFile]:
    """All files of a folder; what cannot be listed inside is reported, the folder itself must be readable."""
    refused: list[SourceFile] = []

    def on_error(error: OSError) -> None:
        folder = Path(os.fsdecode(error.filename))
        if folder == root:
            raise DataError(
                f"data path {printable(root)}: cannot be listed: {_reason(error)}; check its permissions"
            ) from error
        refused.append(_refused(folder, "other", "unreadable", f"folder: {_reason(error)}"))

    inside = root.resolve()
    entries: list[Path] = []
    for folder, folders, names in os.walk(root, onerror=on_error):
        entries += [Path(folder, name) for name in names]
        entries += [Path(folder, name) for name in folders if Path(folder, name).is_symlink()]
    for path in sorted(entries, key=lambda path: os.fsencode(path.relative_to(root))):
        if path.is_symlink():
            target = Path(os.path.realpath(path))
            if not target.is_relative_to(inside):
                yield _refused(path, _kind(path), "unsupported", "a link out of the folder; name its target instead")
                continue
            if target.is_dir():
                yield _refused(path, "other", "unsupported", "a link to a folder that is read anyway")
                continue
        yield _examine(path)
    yield from refused


def _examine(path: Path) -> SourceFile:
    kind = _kind(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return _refused(path, kind, "unsupported", "no regular file")
        if kind == "other":
            return _refused(path, kind, "unsupported", f"suffix {printable(path.suffix)!r}")
        if status.st_size == 0:
            return _refused(path, kind, "empty", "0 bytes")
        return SourceFile(path, kind, sha256=_sha256(path))
    except OSError as error:
        return _refused(path, kind, "unreadable", _reason(error))


def _sha256(path: Path) -> str:
    # A file that became a pipe since it was looked at must not block.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        state = hashlib.sha256()
        while block := file.read(_HASH_BYTES):
            state.update(block)
    return state.hexdigest()


def _kind(path: Path) -> Kind:
    return KINDS.get(path.suffix.lower(), "other")


def _refused(path: Path, kind: Kind, status: Status, detail: str) -> SourceFile:
    return SourceFile(path, kind, report=FileReport(printable(path), kind, status, detail=detail))


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _nearest(path: Path) -> str:
    """Names the deepest part of a missing path that exists, which is where the typing error is."""
    for parent in path.absolute().parents:
        if parent.exists():
            return f" ({printable(parent)} exists)"
    return ""


def moved(report: FileReport, path: Path) -> FileReport:
    """Returns the report of the same bytes at another place."""
    return replace(report, path=printable(path))
