"""What a file format is, and which format a file belongs to."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from trfmoe_core.data.documents.records import Document, Unit
from trfmoe_core.data.documents.reports import Status, shortened
from trfmoe_core.data.formats.compression import COMPRESSED_SUFFIXES, COMPRESSIONS, compression_of, inflated_head
from trfmoe_core.errors import ConfigError
from trfmoe_core.registry import Registry

RULES = 2
"""Increase it whenever the same file gives other documents: what is in caches is then read again."""


class ReadLog:
    """What a format reports about a unit besides its documents."""

    def __init__(self) -> None:
        """Starts with status `ok`."""
        self.status: Status = "ok"
        self.detail = ""
        self.pages: int | None = None
        self.characters = 0

    def fail(self, status: Status, detail: str) -> None:
        """Records a failure. In the report the status is `partial` if some text was read all the same."""
        self.status = status
        self.note(detail)

    def note(self, detail: str) -> None:
        """Adds a remark for the owner of the data."""
        self.detail = f"{self.detail}; {detail}" if self.detail else detail


class Format(ABC):
    """How files of one format become documents. A format is stateless.

    A file belongs to the format that recognises how it begins, or else to the format that has its suffix (`settle`).

    Attributes:
        suffixes: file names that belong to the format, in lower case.
        compressible: True if compressed files are accepted too (`compression.Decompressed`).
        tells_language: True if `read` obeys `unit.options.languages`. Files of other formats are refused where an entry
            of `data` names languages.
        shared_by: how nodes that share the files (`partition`) divide them among each other.
            documents: every node reads every file and keeps its own pieces of its documents. Nothing else has to be
                done.
            lines: `read` itself yields only the documents that `unit.options` includes, with their `number`.
            rows: every node reads a range of the rows of all files; needs `group_rows`, and a `read` that yields the
                rows from `unit.start` to `unit.stop`, each at most once.
            files: every node reads whole files; a file that is too large for that is divided like documents.
    """

    suffixes: ClassVar[tuple[str, ...]]
    compressible: ClassVar[bool] = False
    tells_language: ClassVar[bool] = False
    shared_by: ClassVar[Literal["documents", "lines", "rows", "files"]] = "documents"

    @classmethod
    def recognises(cls, head: bytes) -> bool:
        """Returns True if a file that begins with `head` is of this format for certain, whatever its suffix.

        A compressed file is inflated first. Formats without a signature, such as text, keep this method.
        """
        return False

    def split(self, unit: Unit) -> list[Unit]:
        """Returns the smaller units that make up `unit`, to be read one by one. May read the file's index."""
        return [unit]

    def group_rows(self, path: Path) -> list[int]:
        """Returns the number of rows of every row group of a file, for formats that are shared by rows.

        Raises:
            ConfigError: the format does not count its rows.
        """
        raise ConfigError(
            f"file format {type(self).__name__}: it is shared by rows, but has no group_rows(); add it, or let it be "
            'shared by "documents"'
        )

    @abstractmethod
    def read(self, unit: Unit, log: ReadLog) -> Iterator[Document]:
        """Yields the unit's documents and reports lost text to `log`.

        Raises:
            OSError: the file cannot be read; the reader of the format reports it.
        """


FORMATS: Registry[type[Format]] = Registry("file format", "trfmoe_core.data.formats")


def format_of(kind: str) -> Format:
    """Returns the format registered as `kind`."""
    return FORMATS.find(kind)()


def known_suffixes() -> str:
    """Returns the suffixes of all formats, in words."""
    formats = [FORMATS.find(name) for name in FORMATS.names()]
    plain = [suffix for kind in formats for suffix in kind.suffixes]
    compressible = [suffix for kind in formats if kind.compressible for suffix in kind.suffixes]
    return f"{', '.join(plain)} ({', '.join(compressible)} also with {' or '.join(COMPRESSED_SUFFIXES)})"


@dataclass(frozen=True)
class Content:
    """What the beginning of a file says about it.

    Attributes:
        kind: name of the format that recognises it; empty if none does.
        compression: how it is compressed; empty if it is not.
    """

    kind: str = ""
    compression: str = ""


def recognise(head: bytes) -> Content:
    """Returns what a file that begins with `head` is."""
    compression = compression_of(head)
    inner = inflated_head(head, compression) if compression else head
    kinds = (name for name in FORMATS.names() if FORMATS.find(name).recognises(inner))
    return Content(next(kinds, ""), compression)


def kind_of(path: Path) -> str:
    """Returns the name of the format that a file's suffix belongs to, or `other`.

    Raises:
        ConfigError: two formats claim the suffix.
    """
    suffix = path.suffix.lower()
    compressed = suffix in COMPRESSED_SUFFIXES
    if compressed:
        suffix = Path(path.stem).suffix.lower()
    formats = {name: FORMATS.find(name) for name in FORMATS.names()}
    fitting = [
        name for name, kind in formats.items() if suffix in kind.suffixes and (kind.compressible or not compressed)
    ]
    if len(fitting) > 1:
        raise ConfigError(f"file format: {' and '.join(fitting)} both claim {suffix!r}; take it from one of them")
    return fitting[0] if fitting else "other"


def settle(path: Path, content: Content) -> tuple[str, str]:
    """Returns (kind, remark) of a file by its content and, where that says nothing, by its suffix.

    The kind is `other` if the file cannot be read; the remark then says why. Otherwise it says what is odd.
    """
    by_suffix = kind_of(path)
    kind = content.kind or by_suffix
    suffix = shortened(path.suffix)
    if kind == "other":
        return kind, f"suffix {suffix!r}" if suffix else "neither a suffix nor a content that is known"
    if content.compression and not FORMATS.find(kind).compressible:
        return "other", f"{kind} compressed with {content.compression}; decompress it"
    odd = []
    if kind != by_suffix:
        odd.append(f"its content is {kind}" + f", its suffix is {suffix!r}" * bool(suffix))
    expected = next((name for name, one in COMPRESSIONS.items() if path.suffix.lower() in one.suffixes), "")
    if kind == by_suffix and content.compression != expected:
        odd.append(f"its content is {content.compression or 'not compressed'}, its suffix is {suffix!r}")
    return kind, "; ".join(odd)
