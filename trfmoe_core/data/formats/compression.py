"""Reads compressed files in steps, with a limit on how much they may inflate."""

import bz2
import io
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from trfmoe_core.data.documents.opening import open_examined
from trfmoe_core.data.documents.records import SourceFile
from trfmoe_core.data.documents.reports import Status

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAX_RATIO = 50
"""Text compresses 3 to 20 times and logs up to 50 times. A file that inflates further is not text."""
FREE_BYTES = 1 << 26
"""Any file may inflate to this size, however small it is."""
_BLOCK_BYTES = 1 << 16
_XZ_MEMORY = 1 << 30
_ZSTD_WINDOW_LOG = 31
_PADDING = b"\0"
_ERRORS = (EOFError, zlib.error, lzma.LZMAError, zstd.ZstdError, OSError, ValueError)


class Inflater(Protocol):
    """Inflates one frame of a compressed file. Python's own classes for bzip2, xz and zstd have this interface."""

    @property
    def eof(self) -> bool:
        """True if the frame has ended."""
        ...

    @property
    def needs_input(self) -> bool:
        """True if nothing more comes without more input."""
        ...

    @property
    def unused_data(self) -> bytes:
        """What follows the frame."""
        ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """Returns at most `max_length` bytes of what `data` inflates to."""
        ...


class _GzipInflater:
    """zlib's inflater with the interface of the others."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._member.eof

    @property
    def needs_input(self) -> bool:
        return not self._member.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._member.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._member.decompress(self._member.unconsumed_tail + data, max(0, max_length))


@dataclass(frozen=True)
class Compression:
    """One kind of compression.

    Attributes:
        suffixes: file names that end so are compressed in this way.
        signatures: how the files begin.
        inflater: returns an inflater for one frame.
    """

    suffixes: tuple[str, ...]
    signatures: tuple[bytes, ...]
    inflater: Callable[[], Inflater]


def _zstd_inflater() -> Inflater:
    # Memory for a long window is taken only as far as text fills it, and MAX_RATIO limits the text.
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG})


COMPRESSIONS = {
    "gzip": Compression((".gz",), (b"\x1f\x8b\x08",), _GzipInflater),
    "zstd": Compression(
        (".zst", ".zstd"),
        # Some programs begin with a skippable frame.
        (b"\x28\xb5\x2f\xfd", *(bytes([0x50 + number]) + b"\x2a\x4d\x18" for number in range(16))),
        _zstd_inflater,
    ),
    "bzip2": Compression((".bz2",), tuple(b"BZh%d1AY&SY" % level for level in range(1, 10)), bz2.BZ2Decompressor),
    "xz": Compression((".xz",), (b"\xfd7zXZ\0",), lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY)),
}
COMPRESSED_SUFFIXES = tuple(suffix for kind in COMPRESSIONS.values() for suffix in kind.suffixes)


def compression_of(head: bytes) -> str:
    """Returns how a file that begins with `head` is compressed; empty if it is not."""
    return next((name for name, kind in COMPRESSIONS.items() if head.startswith(kind.signatures)), "")


def inflated_head(head: bytes, compression: str) -> bytes:
    """Returns what the beginning of a compressed file inflates to, at most 64 KiB of it."""
    try:
        return next(_frames(io.BytesIO(head), COMPRESSIONS[compression]), b"")
    except _ERRORS:
        return b""


class Decompressed(io.RawIOBase):
    """The bytes of a file, inflated if it is compressed (`SourceFile.compression`).

    Reading ends where the file is broken or inflates too far; `problem` then holds the status and the reason.
    """

    def __init__(self, file: SourceFile) -> None:
        """Opens the file.

        Raises:
            ChangedError: it was changed since it was examined.
            OSError: it cannot be opened.
        """
        self._compression = COMPRESSIONS.get(file.compression)
        self._file = open_examined(file)
        self._blocks = _frames(self._file, self._compression) if self._compression else _plain(self._file)
        self._size = file.stamp.size if file.stamp else 0
        self._left = memoryview(b"")
        self._given = 0
        self.problem: tuple[Status, str] | None = None

    def readable(self) -> bool:
        """Returns True."""
        return True

    def head(self, size: int) -> tuple[bytes, bool]:
        """Returns about the next `size` bytes, which stay unread, and whether they are all that is left."""
        parts = [bytes(self._left)]
        held = len(self._left)
        while held < size and (block := self._next_block()):
            parts.append(block)
            held += len(block)
        self._left = memoryview(b"".join(parts))
        return bytes(self._left), held < size

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        """Fills the front of `buffer` and returns the number of bytes, 0 at the end."""
        if not self._left:
            self._left = memoryview(self._next_block())
        part = self._left[: len(buffer)]
        buffer[: len(part)] = part
        self._left = self._left[len(part) :]
        return len(part)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
        super().close()

    def _next_block(self) -> bytes:
        if self.problem is not None:
            return b""
        try:
            block = next(self._blocks, b"")
        except _ERRORS as error:
            if not self._compression:
                raise
            self.problem = "broken", f"its compression is broken: {str(error).strip() or type(error).__name__}"
            return b""
        self._given += len(block)
        if self._compression and self._given > max(FREE_BYTES, MAX_RATIO * self._size):
            self.problem = "too-large", f"it inflates to more than {MAX_RATIO} times its size; the rest is left out"
            return b""
        return block


def _plain(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(_BLOCK_BYTES):
        yield block


def _frames(file: BinaryIO, compression: Compression) -> Iterator[bytes]:
    """Yields the contents of all frames of a file; zero bytes between and after them are padding."""
    data = file.read(_BLOCK_BYTES)
    while data:
        inflater, given = compression.inflater(), 0
        start = last = file.tell() - len(data)
        try:
            while True:
                for block in _inflate(inflater, data):
                    yield block
                    given += len(block)
                if inflater.eof:
                    break
                last = file.tell()
                if not (data := file.read(_BLOCK_BYTES)):
                    raise EOFError("it ends in the middle")
        except _ERRORS:
            yield from _before_damage(file, compression, start, last, given)
            raise
        data = (inflater.unused_data or file.read(_BLOCK_BYTES)).lstrip(_PADDING)
        while not data and (more := file.read(_BLOCK_BYTES)):
            data = more.lstrip(_PADDING)


def _inflate(inflater: Inflater, data: bytes) -> Iterator[bytes]:
    """Yields all that comes out when `data` goes in, in blocks of limited size."""
    while True:
        block = inflater.decompress(data, _BLOCK_BYTES)
        if block:
            yield block
        if inflater.eof or inflater.needs_input:
            return
        data = b""


def _before_damage(file: BinaryIO, compression: Compression, start: int, last: int, given: int) -> Iterator[bytes]:
    """Yields what a damaged frame holds before the damage, after the first `given` bytes.

    An inflater that raises drops what came out in that step. So the frame is inflated again, the step with the damage
    byte by byte.

    Args:
        file: the compressed file.
        compression: how it is compressed.
        start: where the frame begins.
        last: where the data of the step with the damage begin.
        given: what was yielded already.
    """
    file.seek(start)
    inflater = compression.inflater()
    steps = [_BLOCK_BYTES] * ((last - start) // _BLOCK_BYTES) + [(last - start) % _BLOCK_BYTES]
    try:
        for size in (*filter(None, steps), *[1] * _BLOCK_BYTES):
            if not (data := file.read(size)):
                return
            for block in _inflate(inflater, data):
                if len(block) > given:
                    yield block[given:]
                given = max(0, given - len(block))
            if inflater.eof:
                return
    except _ERRORS:
        return
