"""Zip archives: their members are unpacked into the cache, under numbers, and read as files of their own."""

import json
import re
import stat
import zipfile
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from trfmoe_core.atomic import new_folder, write_text
from trfmoe_core.data.documents.reports import Status
from trfmoe_core.data.formats.base import kind_of
from trfmoe_core.data.formats.compression import FREE_BYTES, MAX_RATIO

CACHE = "archives"
"""Name of the folder in the cache."""
MAX_MEMBERS = 100_000
_SUFFIX = ".zip"
# Increase it whenever the same archive gives other members.
_FORMAT = 1
_INDEX = "members.json"
_SUFFIXES = re.compile(r"(?:\.[A-Za-z0-9]{1,16}){0,2}\Z")
_BLOCK_BYTES = 1 << 20


class ArchiveError(Exception):
    """An archive cannot be opened. The message is the reason."""


@dataclass(frozen=True)
class Member:
    """A file in an archive.

    Attributes:
        name: its name there, which may be anything.
        file: name of the unpacked file in the archive's folder; empty if it was not unpacked.
        status: why it was not unpacked.
        detail: the same in words.
    """

    name: str
    file: str = ""
    status: Status = "unsupported"
    detail: str = ""


def is_archive(path: Path) -> bool:
    """Returns True if the suffix is that of a zip archive."""
    return path.suffix.lower() == _SUFFIX


def unpack(path: Path, sha256: str, cache_dir: Path) -> tuple[Path, list[Member]]:
    """Returns the folder with the unpacked files of an archive, and its members in order.

    An archive is unpacked once. Its members may inflate to 50 times its size, and in any case to 64 MiB.

    Raises:
        ArchiveError: it is none, or it has too many members.
        OSError: it cannot be read, or the cache cannot be written.
    """
    folder = cache_dir / CACHE / f"{sha256}-{_FORMAT}"
    try:
        return folder, [Member(**entry) for entry in json.loads((folder / _INDEX).read_text(encoding="utf-8"))]
    except (FileNotFoundError, ValueError, TypeError):
        pass
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            if len(infos) > MAX_MEMBERS:
                raise ArchiveError(f"{len(infos)} files in it, more than {MAX_MEMBERS}; unpack it")
            with new_folder(folder) as temporary:
                members = _unpack_all(archive, infos, temporary, max(FREE_BYTES, MAX_RATIO * path.stat().st_size))
                write_text(temporary / _INDEX, json.dumps([asdict(member) for member in members]))
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise ArchiveError(f"no whole zip archive: {error}") from error
    return folder, members


def _unpack_all(archive: zipfile.ZipFile, infos: list[zipfile.ZipInfo], folder: Path, left: int) -> list[Member]:
    """Unpacks files until they have `left` bytes together."""
    members = []
    for number, info in enumerate(infos):
        if refused := _refusal(info):
            members.append(Member(info.filename, "", *refused))
            continue
        suffixes = _SUFFIXES.search(info.filename)
        file = folder / f"{number:06}{suffixes.group() if suffixes else ''}"
        status, detail = _unpack_one(archive, info, file, left)
        if detail:
            file.unlink(missing_ok=True)
            members.append(Member(info.filename, "", status, detail))
        else:
            left -= file.stat().st_size
            members.append(Member(info.filename, file.name))
    return members


def _refusal(info: zipfile.ZipInfo) -> tuple[Status, str] | None:
    """Returns why a member is not unpacked; None if it is."""
    path = Path(info.filename)
    if is_archive(path):
        return "unsupported", "an archive in an archive; unpack it"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "unsupported", "a link in an archive"
    if path.suffix and kind_of(path) == "other":
        return "unsupported", "its suffix is that of no known format"
    if info.flag_bits & 1:
        return "needs-password", "the archive is encrypted; unpack it"
    return None


def _unpack_one(archive: zipfile.ZipFile, info: zipfile.ZipInfo, file: Path, left: int) -> tuple[Status, str]:
    """Writes a member to `file` and returns an empty reason, or returns why that failed."""
    try:
        with archive.open(info) as source, file.open("xb") as target:
            if _copy(source, target, left):
                return "ok", ""
            return "too-large", f"the archive inflates to more than {MAX_RATIO} times its size"
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
        return "broken", f"damaged in the archive: {error}"


def _copy(source: IO[bytes], target: IO[bytes], most: int) -> bool:
    """Copies everything; returns False as soon as there are more than `most` bytes."""
    while block := source.read(_BLOCK_BYTES):
        most -= len(block)
        if most < 0:
            return False
        target.write(block)
    return True
