"""The words of the way from files to documents: what is read, what comes out, and what is said about it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from trfmoe_core.atomic import write_text

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
    "changed",
    "duplicate",
]


@dataclass(frozen=True)
class FileReport:
    """What happened to one file.

    Attributes:
        path: where it lies, safe to print (`printable`).
        kind: its format, or `other`.
        status: `ok`, `partial` (some of its text was lost, see `detail`), or why there is no text of it.
        pages: pages of a PDF that gave text, documents of any other kind.
        characters: characters of text after cleaning.
        detail: the reason in words; empty for `ok` files without anything to say.
        page_errors: what went wrong on single pages of a PDF, the first few.
    """

    path: str
    kind: str
    status: Status
    pages: int = 0
    characters: int = 0
    detail: str = ""
    page_errors: list[str] = field(default_factory=list)


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


def printable(path: Path | str) -> str:
    """Returns the path with control characters and undecodable bytes escaped, so that it fits on one line."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in str(path)
    )


def write_reports(path: Path, files: Sequence[FileReport]) -> None:
    """Writes one JSON object a file, unless they stand there already."""
    text = "".join(json.dumps(asdict(report)) + "\n" for report in files)
    try:
        if path.read_text(encoding="utf-8") == text:
            return
    except (OSError, ValueError):
        pass
    write_text(path, text)


def moved(report: FileReport, path: Path) -> FileReport:
    """Returns the report of the same bytes at another place."""
    return replace(report, path=printable(path))
