"""Finds the files below the paths of a node's data and tells their formats."""

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from trfmoe_core.counts import counted
from trfmoe_core.data.documents.records import SourceFile
from trfmoe_core.data.documents.reports import FileReport, Status, printable
from trfmoe_core.data.formats.base import kind_of, known_suffixes, settle
from trfmoe_core.data.sources.archives import ArchiveError, is_archive, unpack
from trfmoe_core.data.sources.digests import DigestCache
from trfmoe_core.errors import DataError
from trfmoe_core.places import expand

_SYSTEM_FILES = re.compile(r"\._.*|~\$.*|\.DS_Store|Thumbs\.db|desktop\.ini", re.IGNORECASE)
_SYSTEM = "written by the system or an editor, not by its owner"
_SYSTEM_FOLDER = "__MACOSX"
ARCHIVE = "zip"
"""The kind of a zip archive, which is no format: its members are files of their own."""


def find_files(
    paths: Sequence[str], digests: DigestCache | None = None, cache_dir: Path | None = None
) -> list[SourceFile]:
    """Returns every file below `paths`, in the order given; folders are walked in sorted order.

    Only regular files are opened. Links out of a folder, special files and unknown contents are reported as
    `unsupported`, files with the same bytes as an earlier one as `duplicate`, files that only the system or an editor
    wrote as `system-file`. Files whose digest `digests` has are not opened.

    Args:
        paths: files and folders.
        digests: what is known of them.
        cache_dir: where zip archives are unpacked; None: they are refused.

    Raises:
        DataError: there are no paths, or one is missing, unreadable, or a file of unknown format.
        OSError: the cache cannot be written.
    """
    if not paths:
        raise DataError("no data: the list of files and folders is empty; name at least one")
    digests = digests or DigestCache()
    found: list[SourceFile] = []
    seen: dict[tuple[str, str], SourceFile] = {}
    for name in paths:
        for outer in _below(expand(name), digests):
            for file in _members(outer, digests, cache_dir):
                first = seen.setdefault((file.kind, file.sha256), file) if file.report is None else file
                if first is not file:
                    report = FileReport(file.shown, file.kind, "duplicate", detail=f"same bytes as {first.shown}")
                    file = replace(file, report=report)
                found.append(file)
    digests.save()
    return found


def _members(file: SourceFile, digests: DigestCache, cache_dir: Path | None) -> Iterator[SourceFile]:
    """Yields the files of a zip archive, or the file itself if it is none."""
    if file.kind != ARCHIVE or file.report is not None:
        yield file
        return
    if cache_dir is None:
        yield _refused(file.path, "other", "unsupported", "a zip archive; unpack it")
        return
    try:
        folder, members = unpack(file.path, file.sha256, cache_dir)
    except ArchiveError as error:
        yield _refused(file.path, "other", "broken", str(error))
        return
    for member in members:
        name = f"{file.path}!/{member.name}"
        path, inside = folder / (member.file or "none"), PurePosixPath(member.name)
        if _SYSTEM_FILES.fullmatch(inside.name) or _SYSTEM_FOLDER in inside.parts:
            found = _refused(path, "other", "system-file", _SYSTEM)
        elif member.file:
            found = _examine(path, digests)
        else:
            found = _refused(path, kind_of(Path(member.name)), member.status, member.detail)
        if found.report is not None:
            found = replace(found, report=replace(found.report, path=printable(name)))
        yield replace(found, name=name)


def check_path(name: str) -> None:
    """Makes sure that a path is a file of a known format, or a folder with one. Opens no file.

    Raises:
        DataError: it is missing, unreadable, or has no such file.
    """
    root = expand(name)
    where = f"data path {printable(root)}"
    mode = _mode(root)
    try:
        if stat.S_ISDIR(mode):
            os.listdir(root)  # noqa: PTH208  (os.walk passes over a folder that cannot be listed)
        names = [name for _, _, names in os.walk(root) for name in names] if stat.S_ISDIR(mode) else [root.name]
        if not stat.S_ISDIR(mode) and not os.access(root, os.R_OK):
            raise DataError(f"{where}: cannot be read; check its permissions")
    except OSError as error:
        raise DataError(f"{where}: cannot be listed: {_reason(error)}; check its permissions") from error
    if all(kind_of(Path(name)) == "other" and not is_archive(Path(name)) for name in names):
        what = "no file of a known format" if stat.S_ISDIR(mode) else "no known format"
        raise DataError(f"{where}: {what}; give a file or folder with files ending in {known_suffixes()}")


def describe_path(name: str) -> str:
    """Returns, for instance, `3 files (2 pdf, 1 txt), 4.1 MB`, from names and sizes alone.

    Raises:
        DataError: the path cannot be read.
    """
    root = expand(name)
    is_folder = stat.S_ISDIR(_mode(root))
    paths = [Path(folder, one) for folder, _, names in os.walk(root) for one in names] if is_folder else [root]
    kinds: dict[str, int] = {}
    size = 0
    for path in paths:
        suffix = path.suffix.lower().lstrip(".") or "no suffix"
        kind = suffix if kind_of(path) != "other" or is_archive(path) else "of unknown kind"
        kinds[kind] = kinds.get(kind, 0) + 1
        size += path.stat().st_size if kind != "of unknown kind" and path.is_file() else 0
    listed = ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items(), key=lambda one: (-one[1], one[0])))
    return f"{counted(len(paths), 'file')} ({listed}), {size / 1e6:,.1f} MB"


def _mode(root: Path) -> int:
    where = f"data path {printable(root)}"
    try:
        return root.stat().st_mode
    except FileNotFoundError as error:
        raise DataError(f"{where}: no such file or folder{_nearest(root)}; correct the path") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{where}: cannot be read: {_reason(error)}; check its permissions") from error


def _below(root: Path, digests: DigestCache) -> Iterator[SourceFile]:
    """Yields the file `root`, or all files of the folder `root`."""
    where = f"data path {printable(root)}"
    if stat.S_ISDIR(_mode(root)):
        yield from _walk(root, digests)
        return
    file = _examine(root, digests)
    if file.report is not None and _SYSTEM_FILES.fullmatch(root.name):
        # A shell's * names such files too, so they end nothing.
        file = _refused(root, "other", "system-file", _SYSTEM)
    if file.report is not None and file.report.status in ("unsupported", "unreadable"):
        raise DataError(
            f"{where}: {file.report.status}: {file.report.detail}; give a readable file ending in {known_suffixes()}"
        )
    yield file


def _walk(root: Path, digests: DigestCache) -> Iterator[SourceFile]:
    """Yields all files of a folder. The folder itself must be readable; folders in it that are not are reported."""
    refused: list[SourceFile] = []

    def on_error(error: OSError) -> None:
        folder = Path(os.fsdecode(error.filename))
        if folder == root:
            raise DataError(
                f"data path {printable(root)}: cannot be listed: {_reason(error)}; check its permissions"
            ) from error
        refused.append(_refused(folder, "other", "unreadable", f"folder: {_reason(error)}"))

    inside = [root.resolve()]
    if blobs := _blobs(inside[0]):
        inside.append(blobs)
    entries: list[Path] = []
    for folder, folders, names in os.walk(root, onerror=on_error):
        entries += [Path(folder, name) for name in names]
        entries += [Path(folder, name) for name in folders if Path(folder, name).is_symlink()]
    for path in sorted(entries, key=lambda path: os.fsencode(path.relative_to(root))):
        if path.is_symlink():
            target = Path(os.path.realpath(path))
            if not any(target.is_relative_to(place) for place in inside):
                yield _refused(path, kind_of(path), "unsupported", "a link out of the folder; name its target instead")
                continue
            if target.is_dir():
                yield _refused(path, "other", "unsupported", "a link to a folder that is read anyway")
                continue
        if _SYSTEM_FILES.fullmatch(path.name) or _SYSTEM_FOLDER in path.relative_to(root).parts:
            yield _refused(path, "other", "system-file", _SYSTEM)
            continue
        yield _examine(path, digests)
    yield from refused


def _blobs(folder: Path) -> Path | None:
    """Returns the folder that holds the files of a snapshot in the hub's cache; snapshots consist of links into it."""
    for place in (folder, *folder.parents):
        if place.parent.name == "snapshots" and (place.parent.parent / "blobs").is_dir():
            return (place.parent.parent / "blobs").resolve()
    return None


def _examine(path: Path, digests: DigestCache) -> SourceFile:
    kind = kind_of(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return _refused(path, kind, "unsupported", "no regular file")
        if status.st_size == 0 and kind != "other":
            return _refused(path, kind, "empty", "0 bytes")
        sha256, stamp, content = digests.digest(path)
        if is_archive(path) and not content.kind:
            return SourceFile(path, ARCHIVE, sha256, stamp)
        kind, remark = settle(path, content)
        if kind == "other":
            return _refused(path, kind, "unsupported", remark)
        return SourceFile(path, kind, sha256, stamp, compression=content.compression, note=remark)
    except OSError as error:
        return _refused(path, kind, "unreadable", _reason(error))


def _refused(path: Path, kind: str, status: Status, detail: str) -> SourceFile:
    return SourceFile(path, kind, report=FileReport(printable(path), kind, status, detail=detail))


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _nearest(path: Path) -> str:
    """Returns a hint with the deepest existing parent of a missing path: the typing error comes after it."""
    for parent in path.absolute().parents:
        if parent.exists():
            return f" ({printable(parent)} exists)"
    return ""
