"""JSON: objects, one a line, in an array or pretty-printed. The `text` of each is a document."""

from collections.abc import Iterator
from typing import Any

from trfmoe_core.data.documents.records import Document, Unit
from trfmoe_core.data.documents.reports import shortened
from trfmoe_core.data.formats.base import FORMATS, Format, ReadLog
from trfmoe_core.data.formats.decoding import open_text
from trfmoe_core.data.formats.json_values import values

TEXT_KEY = "text"
_LISTED_KEYS = 12


@FORMATS.register("jsonl")
class JsonFormat(Format):
    """`.jsonl`, `.jsonlines`, `.ndjson` and `.json`, also compressed."""

    suffixes = (".jsonl", ".jsonlines", ".ndjson", ".json")
    compressible = True
    tells_language = True
    shared_by = "lines"

    def read(self, unit: Unit, log: ReadLog) -> Iterator[Document]:
        """Yields the texts of this node's objects. Bad values are counted, and the first is described in `log`."""
        bad, first, other = 0, "", 0
        options = unit.options
        with open_text(unit, log) as file:
            for number, place, value, broken in values(file):
                if not options.includes(number):
                    continue
                if reason := broken or _problem(value):
                    bad += 1
                    first = first or f"{place}: {reason}"
                elif options.excludes_language(value.get("language")):
                    other += 1
                else:
                    yield Document(value[TEXT_KEY], place, number)
        if bad:
            log.fail("broken", f"{bad} bad values, first {first}")
        if other:
            log.note(f"{other} objects in other languages, or without one, left out")


def _problem(value: Any) -> str:
    """Returns why a value is no document; empty if it is one."""
    if not isinstance(value, dict):
        return f"a {type(value).__name__}, not an object"
    if not isinstance(value.get(TEXT_KEY), str):
        keys = ", ".join(shortened(key) for key in sorted(value)[:_LISTED_KEYS])
        return f"no string under {TEXT_KEY!r} (has {keys or 'nothing'})"
    return ""
