"""Reads the documents of one unit of a file in constant memory and reports how that went."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from trfmoe_core.data.documents.clean import Normalization, clean
from trfmoe_core.data.documents.encoding import MAX_UNREADABLE, UNREADABLE, unreadable_share
from trfmoe_core.data.documents.opening import SMALL_BYTES, stamp_of
from trfmoe_core.data.documents.pieces import cut
from trfmoe_core.data.documents.records import Document, SourceFile, Unit
from trfmoe_core.data.documents.reports import FileReport, Status, printable, shortened
from trfmoe_core.data.formats.base import Format, ReadLog, format_of
from trfmoe_core.data.formats.boundary import boundary
from trfmoe_core.errors import ConfigError

_MAX_DETAIL = 600
_SMALLEST_PIECE = 64
_PIECES_PER_NODE = 4


class Reading:
    """Iterates over the cleaned documents of one unit. `report` is complete once the iteration has ended."""

    def __init__(self, unit: Unit, normalization: Normalization = "safe") -> None:
        """Prepares to read `unit`. The file is opened when the iteration begins."""
        self._unit = unit
        self._normalization = normalization
        self._log = ReadLog()
        if unit.file.note:
            self._log.note(unit.file.note)
        self._documents = 0
        self._skipped = 0
        self._garbled = 0
        self._replaced = 0

    def __iter__(self) -> Iterator[Document]:
        """Yields this node's documents. Errors of the file end up in the report."""
        unit, log = self._unit, self._log
        kind = format_of(unit.file.kind)
        with boundary(unit.file, log):
            for number, document in enumerate(kind.read(unit, log), start=1):
                mine = self._mine(number, document, kind)
                if mine is None:
                    self._skipped += 1
                    continue
                self._documents += any(mine)
                for text in filter(None, mine):
                    log.characters += len(text)
                    yield replace(document, text=text)
            if self._may_change() and stamp_of(unit.file.path) != unit.file.stamp:
                log.status, log.detail = "changed", "it changed while it was read; start again"
        if self._garbled:
            log.fail("broken", f"{self._garbled} documents with more than {MAX_UNREADABLE:.0%} unreadable characters")
        if self._replaced:
            log.fail("partial", f"{self._replaced} unreadable characters became U+FFFD")

    def _is_readable(self, text: str) -> bool:
        """Returns False for a document with too many unreadable characters, and counts them."""
        share = unreadable_share(text)
        if share > MAX_UNREADABLE:
            self._garbled += 1
            return False
        if share:
            self._replaced += text.count(UNREADABLE)
        return True

    def _mine(self, number: int, document: Document, kind: Format) -> Sequence[str] | None:
        """Returns the cleaned texts of this node's part of a document; None if it belongs to other nodes.

        Raises:
            ConfigError: the format does not keep to what it says about sharing.
        """
        unit, options = self._unit, self._unit.options
        _check_sharing(kind, unit, number, document)
        whole = options.of == 1 or kind.shared_by == "lines"
        if not whole and not options.piece_bytes and not options.includes(number):
            return None
        text = clean(document.text, normalization=self._normalization)
        if not self._is_readable(text):
            return []
        if whole or not options.piece_bytes:
            return [text]
        num_bytes = len(text.encode("utf-8"))
        if kind.shared_by != "files" and num_bytes <= options.piece_bytes:
            return options.share(number, [text]) or None
        # A small file or document is cut finer, so that every node gets some pieces of it.
        size = min(options.piece_bytes, max(_SMALLEST_PIECE, num_bytes // (_PIECES_PER_NODE * options.of)))
        return options.share(number, cut(text, size)) or None

    def _may_change(self) -> bool:
        """Returns True for a large file: a small one is read in one go when it is opened."""
        stamp = self._unit.file.stamp
        return self._unit.text_file is None and stamp is not None and stamp.size > SMALL_BYTES

    @property
    def report(self) -> FileReport:
        """What became of the unit."""
        status, detail = self._log.status, self._log.detail
        if self._log.characters and status not in ("ok", "changed"):
            status = "partial"
        if status in ("ok", "partial") and not self._log.characters:
            status = "no-text"
            if self._skipped:
                detail = f"{detail}; " * bool(detail) + f"{self._skipped} documents belong to other nodes"
        pages = self._documents if self._log.pages is None or not self._log.characters else self._log.pages
        file = self._unit.file
        if self._unit.extracted is not None and status != "unreadable":
            return replace(
                self._unit.extracted, detail="; ".join(filter(None, (file.note, self._unit.extracted.detail)))
            )
        detail = shortened(detail, _MAX_DETAIL)
        return FileReport(printable(file.path), file.kind, status, pages, self._log.characters, detail)


def _check_sharing(kind: Format, unit: Unit, number: int, document: Document) -> None:
    if kind.shared_by == "lines" and unit.options.of > 1:
        if document.number is None or not unit.options.includes(document.number):
            raise ConfigError(
                f"file format {unit.file.kind}: it is shared by lines, but reads line {document.number} for node "
                f"{unit.options.index} of {unit.options.of}; let read() yield only lines that unit.options includes, "
                "with their number"
            )
    elif kind.shared_by == "rows" and unit.stop is not None and number > unit.stop - unit.start:
        raise ConfigError(
            f"file format {unit.file.kind}: it is shared by rows, but reads more than the rows {unit.start} to "
            f"{unit.stop}; let read() keep to unit.start and unit.stop"
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
