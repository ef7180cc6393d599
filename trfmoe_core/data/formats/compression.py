"""Compressed files, inflated step by step and never without bound."""

import io
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from trfmoe_core.data.documents.opening import open_examined
from trfmoe_core.data.documents.records import SourceFile
from trfmoe_core.data.documents.reports import Status
from trfmoe_core.data.formats.base import PACKINGS

MAX_RATIO = 50
"""Text packs 3 to 20 times, logs up to 50 times; what inflates further is no text."""
FREE_BYTES = 1 << 26
"""What any file may inflate to, however small it is."""
_BLOCK_BYTES = 1 << 16


class Unpacked(io.RawIOBase):
    """The bytes of a file, inflated where its name ends in `.gz` or `.zst`.

    Reads to the end of what is good: afterwards `problem` says what was wrong with the rest, if anything.
    """

    def __init__(self, file: SourceFile) -> None:
        """Opens the file.

        Raises:
            ChangedError: it is no longer the one that was examined.
        """
        suffix = file.path.suffix.lower()
        self._file = open_examined(file)
        self._blocks = _UNPACKERS.get(suffix, _plain)(self._file)
        self._size = file.stamp.size if file.stamp else 0
        self._left = b""
        self._given = 0
        self._packed = suffix in _UNPACKERS
        self.problem: tuple[Status, str] | None = None

    def readable(self) -> bool:
        """True: it is a file to read."""
        return True

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        """Fills the front of `buffer`; 0 at the end."""
        if not self._left and self.problem is None:
            self._left = self._next_block()
        part = self._left[: len(buffer)]
        buffer[: len(part)] = part
        self._left = self._left[len(part) :]
        return len(part)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
        super().close()

    def _next_block(self) -> bytes:
        try:
            block = next(self._blocks, b"")
        except (OSError, EOFError, zlib.error, ValueError) as error:
            if not self._packed:
                raise
            self.problem = "broken", f"its compression is broken: {str(error).strip() or type(error).__name__}"
            return b""
        self._given += len(block)
        if self._packed and self._given > max(FREE_BYTES, MAX_RATIO * self._size):
            self.problem = "too-large", f"it inflates to more than {MAX_RATIO} times its size; the rest is left out"
            return b""
        return block


def _plain(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(_BLOCK_BYTES):
        yield block


def _gzip(file: BinaryIO) -> Iterator[bytes]:
    """Yields the contents of all members of a gzip file; zeros after the last one are padding."""
    data = file.read(_BLOCK_BYTES)
    while data:
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            if not data:
                raise EOFError("it ends in the middle")
            if block := member.decompress(data, _BLOCK_BYTES):
                yield block
            data = member.unconsumed_tail or (b"" if member.eof else file.read(_BLOCK_BYTES))
        data = (member.unused_data or file.read(_BLOCK_BYTES)).lstrip(b"\0")
        while not data and (more := file.read(_BLOCK_BYTES)):
            data = more.lstrip(b"\0")


def _zstd(file: BinaryIO) -> Iterator[bytes]:
    import pyarrow as pa

    with pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd") as stream:
        while block := stream.read(_BLOCK_BYTES):
            yield block


_UNPACKERS = dict(zip(PACKINGS, (_gzip, _zstd), strict=True))
