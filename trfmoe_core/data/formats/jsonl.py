"""JSON lines: one object a line with a string under `text`; the rest of it is provenance."""

import io
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from trfmoe_core.data.documents.records import Document, Unit
from trfmoe_core.data.formats.base import FORMATS, Log
from trfmoe_core.data.formats.compression import Unpacked

TEXT_KEY = "text"
_LINE_BYTES = 1 << 24
_BUFFER_BYTES = 1 << 20


class JsonLinesFormat:
    """`.jsonl` and `.ndjson`, also compressed."""

    suffixes: tuple[str, ...] = (".jsonl", ".ndjson")
    packed = True
    cleaned = False

    def split(self, unit: Unit) -> list[Unit]:
        """Returns the unit: a file is read as a whole."""
        return [unit]

    def read(self, unit: Unit, log: Log) -> Iterator[Document]:
        """Yields the texts of this node's good lines; bad ones are counted and the first is described."""
        bad, first, other = 0, "", 0
        options = unit.options
        with Unpacked(unit.file) as raw, io.BufferedReader(raw, _BUFFER_BYTES) as file:
            for number, line in enumerate(_lines(file), start=1):
                if number % options.of != options.index:
                    continue
                if line is not None and not line.strip(b" \t\r\n\xef\xbb\xbf"):
                    continue
                value, reason = _object(line)
                if value is None:
                    bad += 1
                    first = first or f"line {number}: {reason}"
                    continue
                language = value.get("language")
                if options.languages and isinstance(language, str) and language.casefold() not in options.languages:
                    other += 1
                    continue
                text = value.pop(TEXT_KEY)
                yield Document(text, f"line {number}", value)
            problem = raw.problem
        if bad:
            log.spoilt("broken", f"{bad} bad lines, first {first}")
        if problem:
            log.spoilt(*problem)
        if other:
            log.note(f"{other} lines in other languages left out")


def _lines(file: BinaryIO) -> Iterator[bytes | None]:
    """Yields lines; None for one that is too long to be held in memory."""
    while line := file.readline(_LINE_BYTES):
        if len(line) < _LINE_BYTES or line.endswith(b"\n"):
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(_LINE_BYTES)
        yield None


def _object(line: bytes | None) -> tuple[dict[str, Any] | None, str]:
    """Returns the object of a line with a text in it, or None and what is wrong."""
    if line is None:
        return None, f"longer than {_LINE_BYTES >> 20} MiB"
    try:
        value = json.loads(line.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError) as error:
        return None, f"no JSON ({_first_line(error)})"
    if not isinstance(value, dict):
        return None, f"a {type(value).__name__}, not an object"
    if not isinstance(value.get(TEXT_KEY), str):
        return None, f"no string under {TEXT_KEY!r} (has {', '.join(sorted(value)[:12]) or 'nothing'})"
    return value, ""


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return (text.splitlines()[0] if text else type(error).__name__)[:200]


FORMATS.add("jsonl", JsonLinesFormat())
