"""A file of pieces between cutting and tokenizing, so that neither text nor tokens have to fit into memory."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from trfmoe_core.data.tokenizer import Tokenizer

_BATCH_BYTES = 1 << 20


class PieceFile:
    """A growing list of texts on disk. A context manager; leaving it closes the file."""

    def __init__(self, path: Path) -> None:
        """Creates the file, which must not exist."""
        self._file = path.open("x+b")
        self._offsets = [0]

    def __enter__(self) -> Self:
        """Returns the list itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the file."""
        self._file.close()

    def __len__(self) -> int:
        """Number of pieces."""
        return len(self._offsets) - 1

    def __getitem__(self, index: int) -> bytes:
        """Returns the UTF-8 bytes of one piece."""
        start, end = self._offsets[index], self._offsets[index + 1]
        self._file.seek(start)
        return self._file.read(end - start)

    def append(self, piece: str) -> None:
        """Adds a piece at the end."""
        data = piece.encode("utf-8")
        self._file.seek(self._offsets[-1])
        self._file.write(data)
        self._offsets.append(self._offsets[-1] + len(data))

    def clear(self) -> None:
        """Removes all pieces."""
        self._file.truncate(0)
        self._offsets = [0]

    def tokenized(self, indices: Sequence[int], tokenizer: Tokenizer) -> Iterator[tuple[npt.NDArray[np.int32], int]]:
        """Yields (ids, UTF-8 bytes) of the pieces in this order, encoded about a megabyte at a time."""
        batch: list[bytes] = []
        size = 0
        for index in indices:
            batch.append(self[index])
            size += len(batch[-1])
            if size >= _BATCH_BYTES:
                yield from _encode(batch, tokenizer)
                batch, size = [], 0
        yield from _encode(batch, tokenizer)


def _encode(batch: list[bytes], tokenizer: Tokenizer) -> Iterator[tuple[npt.NDArray[np.int32], int]]:
    encoded = tokenizer.encode_batch([piece.decode("utf-8") for piece in batch])
    for piece, ids in zip(batch, encoded, strict=True):
        yield ids, len(piece)
