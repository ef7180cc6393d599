"""Cuts JSON text into values: one a line, or the elements of an array, or values that span several lines."""

import io
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, TextIO

from trfmoe_core.data.documents.reports import first_line

MAX_CHARACTERS = 1 << 24
"""A longer value is left out."""
_HEAD_CHARACTERS = 1 << 20
# Also the mark before each value of RFC 7464, and a byte order mark.
_BETWEEN = re.compile("[\\s,\x1e\ufeff]*")
_DECODER = json.JSONDecoder()


class Value(NamedTuple):
    """A value and where it stands; `reason` says why there is none."""

    number: int
    place: str
    value: Any = None
    reason: str = ""


def values(file: TextIO) -> Iterator[Value]:
    """Yields the values of a file in order, and for each that cannot be read a reason."""
    head = file.read(_HEAD_CHARACTERS) + file.readline(MAX_CHARACTERS)
    return _spread(head, file) if _is_spread(head) else _lines(head, file)


def _is_spread(head: str) -> bool:
    """Returns True for text that begins with an array, or with a value that does not end on its line."""
    start = _end(_BETWEEN, head, 0)
    line = head[start:].partition("\n")[0].strip()
    if line.startswith("["):
        return True
    if not line.startswith("{") or isinstance(_parsed(line), dict):
        return False
    try:
        _DECODER.raw_decode(head, start)
    except (ValueError, RecursionError):
        return line == "{"
    return True


def _lines(head: str, file: TextIO) -> Iterator[Value]:
    number = 0
    for part in (io.StringIO(head, newline="\n"), file):
        while line := part.readline(MAX_CHARACTERS):
            number += 1
            place = f"line {number}"
            if len(line) == MAX_CHARACTERS and not line.endswith("\n"):
                while line and not line.endswith("\n"):
                    line = part.readline(MAX_CHARACTERS)
                yield Value(number, place, reason=f"longer than {MAX_CHARACTERS:,} characters")
            elif line := line.strip(" \t\r\n\ufeff\x1e"):
                found = _parsed(line)
                if isinstance(found, Exception):
                    yield Value(number, place, reason=f"no JSON ({first_line(found)})")
                else:
                    yield Value(number, place, found)


def _spread(text: str, file: TextIO) -> Iterator[Value]:
    """Yields values wherever they begin and end.

    After a broken one, reading goes on at the next line that begins an object in the same column.
    """
    at, number, in_array = 0, 0, False
    while True:
        at = _end(_BETWEEN, text, at)
        if at == len(text):
            text, at = file.read(_HEAD_CHARACTERS), 0
            if not text:
                return
            continue
        if text[at] == ("]" if in_array else "["):
            in_array, at = not in_array, at + 1
            continue
        try:
            found, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            left = len(text) - at
            added = file.read(max(left, _HEAD_CHARACTERS)) if left <= MAX_CHARACTERS else ""
            if added:
                text, at = text[at - _column(text, at) :] + added, _column(text, at)
                continue
            number += 1
            begin = "\n" + text[at - _column(text, at) : at] + "{"
            while (following := text.find(begin, at)) < 0 and (added := file.read(_HEAD_CHARACTERS)):
                text, at = text[max(at, len(text) - len(begin)) :] + added, 0
            left_out = "; what follows it is left out" * (following < 0)
            yield Value(number, f"item {number}", reason=f"no JSON ({first_line(error)}){left_out}")
            if left_out:
                return
            at = following
            continue
        number += 1
        yield Value(number, f"item {number}", found)
        text, at = (text, end) if end < _HEAD_CHARACTERS else (text[end:], 0)


def _column(text: str, at: int) -> int:
    """Returns how many blanks precede a value on its line; 0 if something else does."""
    blanks = text[text.rfind("\n", 0, at) + 1 : at]
    return len(blanks) if not blanks.strip(" \t") else 0


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        return error


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at
