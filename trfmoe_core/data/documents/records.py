"""The words of the way from files to documents: what is read, what comes out, and what is said about it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from trfmoe_core.data.documents.reports import FileReport


@dataclass(frozen=True)
class Stamp:
    """What tells, without reading it, that a file is still the one that was examined."""

    inode: int
    size: int
    modified_ns: int


@dataclass(frozen=True)
class SourceFile:
    """One file to read (`report` is None), or one that is not read, with the report that says why."""

    path: Path
    kind: str
    sha256: str = ""
    stamp: Stamp | None = None
    report: FileReport | None = None


@dataclass(frozen=True)
class Unit:
    """A part of a file that is read on its own, by any process and in any order; plain values only.

    Attributes:
        file: the file.
        identity: what decides its documents, as JSON values: contents and options, no path, no time.
        start: first row, of a format that counts rows.
        stop: the row after the last one; None: to the end.
        text_file: where the text of the file lies after extraction, for formats that need one.
        told: what became of the file where that is known before, as after extraction.
        options: what the source's entry says about reading.
    """

    file: SourceFile
    identity: tuple[object, ...]
    start: int = 0
    stop: int | None = None
    text_file: Path | None = None
    told: FileReport | None = None
    options: "ReadOptions" = field(default_factory=lambda: ReadOptions())

    def identified(self) -> "Unit":
        """Returns the unit with its identity, which follows from the file's content and how it is read."""
        options = self.options
        part = [self.start, self.stop, list(options.languages), options.index, options.of]
        return replace(self, identity=(self.file.kind, self.file.sha256, *part))


@dataclass(frozen=True)
class ReadOptions:
    """What a source's entry says about reading.

    Attributes:
        languages: in lower case; documents whose own `language` says something else are left out. Empty: all stay.
        index: of every `of` lines of a file with lines, which one is this node's.
        of: how many nodes share the source.
    """

    languages: tuple[str, ...] = ()
    index: int = 0
    of: int = 1


@dataclass(frozen=True, slots=True)
class Document:
    """One text and where it came from.

    Attributes:
        text: cleaned; pages are parted by `clean.PAGE_BREAK`.
        place: where in its file, e.g. `row 12` or `pages 1-40`.
        meta: what the source says about it, e.g. FineWeb's url and date.
    """

    text: str
    place: str = ""
    meta: Mapping[str, object] = field(default_factory=dict)
