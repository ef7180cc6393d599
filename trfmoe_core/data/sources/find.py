"""Which files a node's data consists of, and what they are."""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from trfmoe_core.data.documents.records import SourceFile
from trfmoe_core.data.documents.reports import FileReport, Status, printable
from trfmoe_core.data.formats.base import kind_of, known_suffixes
from trfmoe_core.data.sources.digests import Digests
from trfmoe_core.errors import DataError


def find_files(paths: Sequence[str], digests: Digests | None = None) -> list[SourceFile]:
    """Returns every file below `paths` once, in the order given, folders walked in sorted order.

    Only regular files are opened. Links that lead out of a folder, other file types and other suffixes are reported as
    `unsupported`; files with the bytes of an earlier one as `duplicate`. Files that `digests` remembers are not opened.

    Raises:
        DataError: no paths, or one that is missing, unreadable, or no file of a kind that can be read.
    """
    if not paths:
        raise DataError("no data: the list of files and folders is empty; name at least one")
    digests = digests or Digests()
    found: list[SourceFile] = []
    seen: dict[tuple[str, str], Path] = {}
    for name in paths:
        for file in _below(Path(name).expanduser(), digests):
            if file.report is None:
                first = seen.setdefault((file.kind, file.sha256), file.path)
                if first is not file.path:
                    file = _refused(file.path, file.kind, "duplicate", f"same bytes as {printable(first)}")
            found.append(file)
    digests.save()
    return found


def _below(root: Path, digests: Digests) -> Iterator[SourceFile]:
    where = f"data path {printable(root)}"
    try:
        mode = root.stat().st_mode
    except FileNotFoundError as error:
        raise DataError(f"{where}: no such file or folder{_nearest(root)}; correct the path") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{where}: cannot be read: {_reason(error)}; check its permissions") from error
    if stat.S_ISDIR(mode):
        yield from _walk(root, digests)
        return
    file = _examine(root, digests)
    if file.report is not None and file.report.status in ("unsupported", "unreadable"):
        raise DataError(
            f"{where}: {file.report.status}: {file.report.detail}; give a readable file ending in {known_suffixes()}"
        )
    yield file


def _walk(root: Path, digests: Digests) -> Iterator[SourceFile]:
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
                yield _refused(path, kind_of(path), "unsupported", "a link out of the folder; name its target instead")
                continue
            if target.is_dir():
                yield _refused(path, "other", "unsupported", "a link to a folder that is read anyway")
                continue
        yield _examine(path, digests)
    yield from refused


def _examine(path: Path, digests: Digests) -> SourceFile:
    kind = kind_of(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return _refused(path, kind, "unsupported", "no regular file")
        if kind == "other":
            return _refused(path, kind, "unsupported", f"suffix {printable(path.suffix)!r}")
        if status.st_size == 0:
            return _refused(path, kind, "empty", "0 bytes")
        sha256, stamp = digests.digest(path)
        return SourceFile(path, kind, sha256, stamp)
    except OSError as error:
        return _refused(path, kind, "unreadable", _reason(error))


def _refused(path: Path, kind: str, status: Status, detail: str) -> SourceFile:
    return SourceFile(path, kind, report=FileReport(printable(path), kind, status, detail=detail))


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _nearest(path: Path) -> str:
    """Names the deepest part of a missing path that exists, which is where the typing error is."""
    for parent in path.absolute().parents:
        if parent.exists():
            return f" ({printable(parent)} exists)"
    return ""
