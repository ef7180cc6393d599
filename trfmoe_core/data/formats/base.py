"""What a file format is, and the reading of one unit of a file in constant memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from trfmoe_core.data.documents.records import Document, Unit
from trfmoe_core.data.documents.reports import Status
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
