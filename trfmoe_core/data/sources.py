"""Documents out of files: each reader yields texts in constant memory and then says what became of the file."""

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from trfmoe_core.data.clean import clean
from trfmoe_core.data.files import FileReport, Kind, SourceFile, Status, printable
from trfmoe_core.data.pdf import PdfReader

TEXT_COLUMN = "text"
_BLOCK_BYTES = 1 << 22
_LINE_BYTES = 1 << 26
_BATCH_ROWS = 128


class FileReading:
    """Iterates over the cleaned documents of one file; afterwards `report` says what became of it."""

    def __init__(self, file: SourceFile, pdf_reader: PdfReader) -> None:
        """Prepares to read `file`; nothing is opened before the iteration."""
        self._file = file
        self._pdf_reader = pdf_reader
        self._documents = 0
        self._characters = 0
        self._status: Status = "ok"
        self._detail = ""

    def __iter__(self) -> Iterator[str]:
        """Yields documents; pages of a PDF are parted by `clean.PAGE_BREAK`. Reading errors end up in the report."""
        readers = {"parquet": self._parquet, "jsonl": self._jsonl, "text": self._text, "pdf": self._pdf}
        if self._file.report is not None:
            return
        try:
            for raw in readers[self._file.kind](self._file.path):
                text = clean(raw, join_hyphens=self._file.kind == "pdf")
                if text:
                    self._characters += len(text)
                    yield text
        except OSError as error:
            self._spoilt("unreadable", error.strerror or str(error))

    @property
    def report(self) -> FileReport:
        """What became of the file; complete once the iteration ended."""
        if self._file.report is not None:
            return self._file.report
        status = self._status
        if status in ("ok", "partial") and not self._characters:
            status = "no-text"
        kind: Kind = self._file.kind
        return FileReport(
            printable(self._file.path), kind, status, self._documents, self._characters, printable(self._detail)
        )

    def _spoilt(self, status: Status, detail: str) -> None:
        """Records a failure: what was read before it counts, so the file is then only partly lost."""
        self._status = "partial" if self._characters else status
        self._detail = detail

    def _text(self, path: Path) -> Iterator[str]:
        self._documents = 1
        rest, replaced = "", 0
        with path.open("rb") as file:
            wide = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
            file.seek(0)
            decoder = codecs.getincrementaldecoder("utf-16" if wide else "utf-8-sig")("replace")
            while block := file.read(_BLOCK_BYTES):
                last = len(block) < _BLOCK_BYTES
                text = decoder.decode(block, final=last)
                replaced += text.count("\ufffd") - block.count("\ufffd".encode())
                rest += text
                if not last:
                    border = max(rest.rfind("\n\n"), rest.rfind("\f")) + 1 or rest.rfind("\n") + 1 or len(rest)
                    yield rest[:border]
                    rest = rest[border:]
        yield rest + decoder.decode(b"", final=True)
        if replaced > 0:
            self._status, self._detail = "partial", f"{replaced} places are no Unicode and were replaced"

    def _jsonl(self, path: Path) -> Iterator[str]:
        bad, first = 0, ""
        with path.open("rb") as file:
            for number, line in enumerate(_lines(file), start=1):
                if line is not None and not line.strip(b" \t\r\n\xef\xbb\xbf"):
                    continue
                text, problem = _json_text(line)
                if text is None:
                    bad += 1
                    first = first or f"line {number}: {problem}"
                    continue
                self._documents += 1
                yield text
        if bad:
            self._spoilt("broken", f"{bad} bad lines, first {first}")

    def _parquet(self, path: Path) -> Iterator[str]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        missing = 0
        try:
            with pq.ParquetFile(path) as file:
                problem = _column_problem(file.schema_arrow)
                if problem:
                    self._spoilt("broken", problem)
                    return
                for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=[TEXT_COLUMN]):
                    for value in _binary(batch.column(0)).to_pylist():
                        if value is None:
                            missing += 1
                            continue
                        self._documents += 1
                        yield value.decode("utf-8", "replace")
        except (pa.ArrowException, OSError) as error:
            self._spoilt("broken", f"no whole parquet file: {_first_line(error)}")
        else:
            if missing:
                self._detail = f"{missing} rows without text"

    def _pdf(self, path: Path) -> Iterator[str]:
        result = self._pdf_reader.read(path)
        self._documents = result.pages
        self._status, self._detail = result.status, result.detail
        if result.text:
            yield result.text


def _lines(file: BinaryIO) -> Iterator[bytes | None]:
    """Yields lines; None for one that is too long to be held in memory."""
    while line := file.readline(_LINE_BYTES):
        if len(line) < _LINE_BYTES or line.endswith(b"\n"):
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(_LINE_BYTES)
        yield None


def _json_text(line: bytes | None) -> tuple[str | None, str]:
    """Returns the text of a JSON line, or None and what is wrong with it."""
    if line is None:
        return None, f"longer than {_LINE_BYTES >> 20} MiB"
    try:
        value = json.loads(line.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError) as error:
        return None, f"no JSON ({_first_line(error)})"
    if not isinstance(value, dict):
        return None, f"a {type(value).__name__}, not an object"
    text = value.get(TEXT_COLUMN)
    if not isinstance(text, str):
        return None, f"no string under {TEXT_COLUMN!r} (has {', '.join(sorted(value)[:12]) or 'nothing'})"
    return text, ""


def _column_problem(schema: Any) -> str:
    """Returns what keeps the text column from being read, or nothing."""
    import pyarrow as pa

    columns = [name for name in schema.names if name == TEXT_COLUMN]
    if len(columns) != 1:
        return f"no column {TEXT_COLUMN!r}; it has {', '.join(schema.names[:24]) or 'none'}"
    kind = schema.field(TEXT_COLUMN).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        return f"column {TEXT_COLUMN!r} holds {kind}, not strings"
    return ""


def _binary(column: Any) -> Any:
    """Strings as bytes: writers exist that put other bytes than UTF-8 into string columns."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(pa.large_binary())


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return (text.splitlines()[0] if text else type(error).__name__)[:200]
