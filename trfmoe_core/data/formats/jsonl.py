"""JSON lines: one object per line. Its `text` is the document, its other fields are metadata."""

import io
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from trfmoe_core.data.documents.records import Document, Unit
from trfmoe_core.data.documents.reports import first_line
from trfmoe_core.data.formats.base import FORMATS, Format, ReadLog
from trfmoe_core.data.formats.compression import Decompressed

TEXT_KEY = "text"
_LINE_BYTES = 1 << 24
_BUFFER_BYTES = 1 << 20


@FORMATS.register("jsonl")
class JsonLinesFormat(Format):
    """`.jsonl` and `.ndjson`, also compressed."""

    suffixes = (".jsonl", ".ndjson")
    compressible = True
    shared_by = "lines"

    def read(self, unit: Unit, log: ReadLog) -> Iterator[Document]:
        """Yields the texts of this node's lines. Bad lines are counted, and the first is described in `log`."""
        bad, first, other = 0, "", 0
        options = unit.options
        with Decompressed(unit.file) as raw, io.BufferedReader(raw, _BUFFER_BYTES) as file:
            for number, line in enumerate(_lines(file), start=1):
                if not options.includes(number):
                    continue
                if line is not None and not line.strip(b" \t\r\n\xef\xbb\xbf"):
                    continue
                value, reason = _object(line)
                if value is None:
                    bad += 1
                    first = first or f"line {number}: {reason}"
                    continue
                if options.excludes_language(value.get("language")):
                    other += 1
                    continue
                text = value.pop(TEXT_KEY)
                yield Document(text, f"line {number}", value, number)
            problem = raw.problem
        if bad:
            log.fail("broken", f"{bad} bad lines, first {first}")
        if problem:
            log.fail(*problem)
        if other:
            log.note(f"{other} lines in other languages left out")


def _lines(file: BinaryIO) -> Iterator[bytes | None]:
    """Yields lines; None in place of a line that is too long to be held in memory."""
    while line := file.readline(_LINE_BYTES):
        if len(line) < _LINE_BYTES or line.endswith(b"\n"):
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(_LINE_BYTES)
        yield None


def _object(line: bytes | None) -> tuple[dict[str, Any] | None, str]:
    """Returns the object of a line, or None and what is wrong with the line."""
    if line is None:
        return None, f"longer than {_LINE_BYTES >> 20} MiB"
    try:
        value = json.loads(line.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError) as error:
        return None, f"no JSON ({first_line(error)})"
    if not isinstance(value, dict):
        return None, f"a {type(value).__name__}, not an object"
    if not isinstance(value.get(TEXT_KEY), str):
        return None, f"no string under {TEXT_KEY!r} (has {', '.join(sorted(value)[:12]) or 'nothing'})"
    return value, ""
