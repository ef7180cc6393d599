"""Encodes any event as one line of strict JSON, and decodes it."""

import hashlib
import json
import math
import numbers
from collections.abc import Mapping, Set
from typing import Any

from trfmoe_core.errors import RunFolderError

Event = dict[str, Any]
GENESIS = "0" * 64
MAX_LINE = 64 << 20
"""Bytes of the longest line that is read; earlier releases had no bound of their own."""

MAX_ENTRY = 16 << 20
"""Bytes of the longest line that is written; the verdicts of 15,000 blocks take 4 MiB."""

MAX_TEXT = 100_000
_MAX_DEPTH = 32
_MAX_BITS = 1024
_OWN = frozenset({"seq", "time", "event", "prev"})


def encode_entry(seq: int, time: float, kind: str, fields: Mapping[str, Any], prev: str) -> tuple[Event, bytes]:
    """Returns an event and its line without the line end.

    Values that JSON lacks become null (NaN, infinities) or text; see `plain`. If the line would be longer than
    `MAX_ENTRY`, the largest fields are replaced by a note of their size.

    Args:
        seq: The entry's number, from 0.
        time: Seconds since 1970.
        kind: The event's name.
        fields: The event's own fields.
        prev: Hash of the entry before it.

    Raises:
        ValueError: A field has the name of one that the journal adds.
    """
    if taken := _OWN & fields.keys():
        raise ValueError(f"event {kind!r}: the fields {sorted(taken)} belong to the journal")
    values = plain(fields)
    sizes = {name: len(_dumps(value)) for name, value in values.items()}
    for name in sorted(sizes, key=lambda name: -sizes[name]):
        if sum(sizes.values()) <= MAX_ENTRY:
            break
        values[name] = f"left out: {sizes[name]} bytes"
        sizes[name] = len(values[name])
    event = {"seq": seq, "time": time, "event": kind, **values, "prev": prev}
    return event, _dumps(event)


def decode_entry(line: bytes, number: int, where: object) -> Event:
    """Returns the event of a line without its line end.

    Args:
        line: The bytes.
        number: Of the entry, for the message.
        where: The journal's path, for the message.

    Raises:
        RunFolderError: The line is no entry.
    """
    reason = ""
    try:
        event = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        event, reason = None, f"is no JSON ({str(error)[:100]})"
    if line.endswith(b"\r"):
        reason = "ends in a carriage return: the file was converted to Windows line ends; convert it back"
    elif line.startswith(b"\xef\xbb\xbf"):
        reason = "begins with a byte order mark, which an editor has put there; take it out"
    elif not reason and not (isinstance(event, dict) and isinstance(event.get("event"), str)):
        reason = "is no event"
    if reason:
        raise RunFolderError(f"{where}: entry {number} {reason}; put the file back from a copy")
    found: Event = event
    return found


def check_link(event: Event, number: int, prev: str) -> None:
    """Checks that an entry has its number and the hash of the one before.

    Raises:
        RunFolderError: It has another number or hash.
    """
    if event.get("seq") != number or isinstance(event.get("seq"), bool):
        raise RunFolderError(f"entry {number} has the number {event.get('seq')!r:.40}")
    if event.get("prev") != prev:
        raise RunFolderError(f"entry {number} does not follow from the one before: either of the two was changed")


def line_hash(line: bytes) -> str:
    """Returns the hash by which the next entry names this line."""
    return hashlib.sha256(line).hexdigest()


def plain(value: Any, depth: int = 0) -> Any:
    """Returns a value as JSON has it: keys are text, texts bounded Unicode, numbers that are not finite null."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, numbers.Integral):
        number = int(value)
        return number if number.bit_length() <= _MAX_BITS else f"an integer of {number.bit_length()} bits"
    if isinstance(value, numbers.Real):
        real = float(value)
        return real if math.isfinite(real) else None
    if depth == _MAX_DEPTH:
        return "left out: nested too deeply"
    if isinstance(value, Mapping):
        return {_text(str(key)): plain(entry, depth + 1) for key, entry in value.items()}
    if isinstance(value, (list, tuple, Set)):
        return [plain(entry, depth + 1) for entry in value]
    return _text(str(value))


def _text(text: str) -> str:
    if len(text) > MAX_TEXT:
        text = f"{text[:MAX_TEXT]} ... ({len(text) - MAX_TEXT} more characters)"
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _dumps(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
