"""Files, the units in which they are read, and their documents."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from trfmoe_core.data.documents.reports import FileReport


@dataclass(frozen=True)
class Stamp:
    """Identifies a version of a file without reading it: the stamp differs once the file was changed."""

    inode: int
    size: int
    modified_ns: int


@dataclass(frozen=True)
class SourceFile:
    """A file of a source. It is read if `report` is None; otherwise `report` says why it is not.

    Attributes:
        path: where it lies.
        kind: name of its format, or `other`.
        sha256: hex digest of its bytes.
        stamp: its version when the digest was computed.
        report: why it is not read.
        compression: how it is compressed (`formats.compression.COMPRESSIONS`); empty if it is not.
        note: what its owner should know about it, e.g. that its suffix is wrong.
    """

    path: Path
    kind: str
    sha256: str = ""
    stamp: Stamp | None = None
    report: FileReport | None = None
    compression: str = ""
    note: str = ""


@dataclass(frozen=True)
class ReadOptions:
    """How a source's entry wants its files read.

    Attributes:
        languages: in lower case. Documents that do not say that they are in one of them are left out; empty keeps all.
        index: this node's number among those that share the documents.
        of: number of nodes that share the documents.
        encoding: the codec of text files, as their owner says; empty: it is found out.
        piece_bytes: size of the pieces in which a document is divided among the nodes.
    """

    languages: tuple[str, ...] = ()
    index: int = 0
    of: int = 1
    encoding: str = ""
    piece_bytes: int = 0

    def includes(self, number: int) -> bool:
        """Returns True if document `number` of a file belongs to this node, where whole documents are dealt."""
        return number % self.of == self.index

    def share(self, number: int, pieces: Sequence[str]) -> Sequence[str]:
        """Returns this node's run of the pieces of document `number` of a file.

        The runs of all nodes differ by one piece at most. The longer ones fall to other nodes in every document, so a
        document of one piece belongs to the node that `includes` it.
        """
        turn = self.of - 1 - (self.index - number) % self.of
        return pieces[len(pieces) * turn // self.of : len(pieces) * (turn + 1) // self.of]

    def excludes_language(self, language: object) -> bool:
        """Returns True if documents in this language, or without one, are left out."""
        return bool(self.languages) and not (isinstance(language, str) and language.casefold() in self.languages)


@dataclass(frozen=True)
class Unit:
    """A part of a file that any process can read on its own, in any order. Holds plain values only.

    Attributes:
        file: the file.
        identity: JSON values that determine the documents: contents and options, but no path and no time.
        start: first row, for formats with rows.
        stop: row after the last one; None: to the end.
        text_file: the file's text, for formats whose text is extracted beforehand.
        extracted: the report of that extraction.
        options: how the source's entry wants it read.
    """

    file: SourceFile
    identity: tuple[object, ...] = ()
    start: int = 0
    stop: int | None = None
    text_file: Path | None = None
    extracted: FileReport | None = None
    options: ReadOptions = field(default_factory=ReadOptions)

    def identified(self) -> "Unit":
        """Returns the unit with the identity that follows from the file's content and how it is read."""
        options = self.options
        share = [options.index, options.of, options.piece_bytes]
        part = [self.start, self.stop, list(options.languages), *share, options.encoding]
        return replace(self, identity=(self.file.kind, self.file.sha256, *part))


@dataclass(frozen=True, slots=True)
class Document:
    """One text.

    Attributes:
        text: its pages are separated by `clean.PAGE_BREAK`.
        place: where it stands in its file, e.g. `row 12` or `pages 1-40`.
        number: its number in its file, from formats that are shared by lines.
    """

    text: str
    place: str = ""
    number: int | None = None
