"""What a file format is, and the reading of one unit of a file in constant memory."""

import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from trfmoe_core.data.clean import clean
from trfmoe_core.data.documents import Document, FileReport, SourceFile, Stamp, Status, Unit, printable
from trfmoe_core.registry import Registry


class Log:
    """What a format's reader has to say besides the documents."""

    def __init__(self) -> None:
        """Nothing went wrong so far."""
        self.status: Status = "ok"
        self.detail = ""
        self.pages: int | None = None
        self.characters = 0

    def spoilt(self, status: Status, detail: str) -> None:
        """Records a failure: what was read before it counts, so the file is then only partly lost."""
        self.status = "partial" if self.characters else status
        self.note(detail)

    def note(self, detail: str) -> None:
        """Adds something worth knowing."""
        self.detail = f"{self.detail}; {detail}" if self.detail else detail


class Format(Protocol):
    """How files of one kind become documents.

    Attributes:
        suffixes: which file names are of this kind, in lower case.
        packed: whether such files may also be compressed (`packing`).
        cleaned: whether its documents are clean already.
    """

    suffixes: tuple[str, ...]
    packed: bool
    cleaned: bool

    def split(self, unit: Unit) -> list[Unit]:
        """Returns the units that a unit consists of, to be read one by one; may read the file's index."""
        ...

    def read(self, unit: Unit, log: Log) -> Iterator[Document]:
        """Yields the unit's documents; what is lost goes into `log`. May raise OSError."""
        ...


SMALL_BYTES = 1 << 23
PACKINGS = (".gz", ".zst")
FORMATS: Registry[Format] = Registry("trfmoe_core.data.formats")


def known_suffixes() -> str:
    """Returns the suffixes of all formats, in words."""
    plain = [suffix for name in FORMATS for suffix in FORMATS[name].suffixes]
    packed = [suffix for name in FORMATS if FORMATS[name].packed for suffix in FORMATS[name].suffixes]
    return f"{', '.join(plain)} ({', '.join(packed)} also with {' or '.join(PACKINGS)})"


def kind_of(path: Path) -> str:
    """Returns the name of the format that a file's name says, or `other`."""
    suffix = path.suffix.lower()
    packed = suffix in PACKINGS
    if packed:
        suffix = Path(path.stem).suffix.lower()
    return next(
        (name for name in FORMATS if suffix in FORMATS[name].suffixes and (FORMATS[name].packed or not packed)), "other"
    )


class Reading:
    """Iterates over the cleaned documents of one unit; afterwards `report` says what became of it."""

    def __init__(self, unit: Unit) -> None:
        """Prepares to read `unit`; nothing is opened before the iteration."""
        self._unit = unit
        self._log = Log()
        self._documents = 0

    def __iter__(self) -> Iterator[Document]:
        """Yields documents. What goes wrong ends up in the report."""
        unit, log = self._unit, self._log
        format_ = FORMATS[unit.file.kind]
        try:
            for document in format_.read(unit, log):
                text = document.text if format_.cleaned else clean(document.text)
                if text:
                    log.characters += len(text)
                    self._documents += 1
                    yield Document(text, document.place, document.meta)
            if self._may_change() and stamp_of(unit.file.path) != unit.file.stamp:
                log.status, log.detail = "changed", "it changed while it was read; start again"
        except ChangedError:
            log.spoilt("changed", "it changed since it was examined; start again")
        except OSError as error:
            log.spoilt("unreadable", error.strerror or str(error))

    def _may_change(self) -> bool:
        stamp = self._unit.file.stamp
        return self._unit.text_file is None and stamp is not None and stamp.size > SMALL_BYTES

    @property
    def report(self) -> FileReport:
        """What became of the unit; complete once the iteration ended."""
        status = self._log.status
        if status in ("ok", "partial") and not self._log.characters:
            status = "no-text"
        pages = self._documents if self._log.pages is None else self._log.pages
        file = self._unit.file
        if self._unit.told is not None and status != "unreadable":
            return self._unit.told
        return FileReport(
            printable(file.path), file.kind, status, pages, self._log.characters, printable(self._log.detail)
        )


def join_reports(file: SourceFile, parts: list[FileReport]) -> FileReport:
    """Returns the report of a file from those of its units, in their order."""
    if file.report is not None:
        return file.report
    if len(parts) == 1:
        return parts[0]
    statuses = {part.status for part in parts}
    useful = statuses & {"ok", "partial"}
    status: Status = "no-text"
    if "changed" in statuses:
        status = "changed"
    elif statuses <= {"ok", "no-text"}:
        status = "ok" if useful else "no-text"
    else:
        bad = next(part.status for part in parts if part.status not in ("ok", "no-text"))
        status = "partial" if useful else bad
    details = list(dict.fromkeys(part.detail for part in parts if part.detail))
    return FileReport(
        printable(file.path),
        file.kind,
        status,
        sum(part.pages for part in parts),
        sum(part.characters for part in parts),
        "; ".join(details[:3]) + ("; ..." if len(details) > 3 else ""),
    )


def stamp_of(path: Path | int) -> Stamp:
    """Returns the stamp of a file, or of an open one by its descriptor."""
    status = os.stat(path)  # noqa: PTH116  A descriptor too.
    return Stamp(status.st_ino, status.st_size, status.st_mtime_ns)


class ChangedError(Exception):
    """A file is no longer the one that was examined."""


def open_examined(file: SourceFile) -> BinaryIO:
    """Opens a file for reading; a small one is read as a whole, so that it cannot change any more.

    Raises:
        ChangedError: it is another file than the one that was examined.
    """
    opened = open_plain(file.path)
    if stamp_of(opened.fileno()) != file.stamp:
        opened.close()
        raise ChangedError
    if file.stamp.size > SMALL_BYTES:
        return opened
    with opened:
        data = opened.read(SMALL_BYTES + 1)
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise ChangedError
    return io.BytesIO(data)


def open_plain(path: Path) -> BinaryIO:
    """Opens a file for reading; one that became a pipe since it was looked at does not block."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    return os.fdopen(descriptor, "rb")
