"""Opens the files of text formats as text: inflated and decoded, in constant memory."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from trfmoe_core.data.documents.encoding import find_encoding
from trfmoe_core.data.documents.records import Unit
from trfmoe_core.data.formats.base import ReadLog
from trfmoe_core.data.formats.compression import Decompressed

_HEAD_BYTES = 1 << 23
"""The encoding is found out from this much of a file."""
_BUFFER_BYTES = 1 << 18


@contextmanager
def open_text(unit: Unit, log: ReadLog) -> Iterator[TextIO]:
    """Opens a file that may be compressed and whose encoding is not known. Only line feeds end its lines.

    What cannot be decoded reads as U+FFFD. Where the compression is broken, the text ends, and `log` says so.

    Raises:
        ChangedError: it was changed since it was examined.
        NotTextError: it is binary, or no encoding fits.
        OSError: it cannot be read.
    """
    with Decompressed(unit.file) as raw:
        codec = unit.options.encoding
        if not codec:
            codec, note = find_encoding(*raw.head(_HEAD_BYTES))
            if note:
                log.note(note)
        with io.TextIOWrapper(
            io.BufferedReader(raw, _BUFFER_BYTES), encoding=codec, errors="replace", newline="\n"
        ) as file:
            yield file
        if raw.problem:
            log.fail(*raw.problem)
