"""Tokens on disk: a flat memory-mapped array, and tables with one entry per piece.

Shapes: N = pieces.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from trfmoe_core.errors import DataError

Ints = npt.NDArray[np.int64]
Digests = npt.NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class TokenStore:
    """The training pieces or the held-out pieces of one source. Arrays that were loaded are memory-mapped.

    Attributes:
        tokens: (num_tokens,) uint16 or uint32; every piece is a bos followed by its ids.
        piece_offsets: (N + 1,) where each piece starts in `tokens`; the last entry is num_tokens.
        piece_bytes: (N,) UTF-8 bytes of each piece.
        digests: (N, 2) `prepare.split.digest` of each piece as two numbers.
        documents: (N,) row of each piece's document in `Corpus.documents`.
    """

    tokens: npt.NDArray[np.uint16 | np.uint32]
    piece_offsets: Ints
    piece_bytes: Ints
    digests: Digests
    documents: Ints

    @property
    def num_tokens(self) -> int:
        """Number of tokens, including every piece's bos."""
        return int(self.tokens.size)

    @property
    def num_bytes(self) -> int:
        """UTF-8 bytes of all pieces."""
        return int(self.piece_bytes.sum())

    @property
    def num_pieces(self) -> int:
        """Number of pieces."""
        return int(self.piece_bytes.size)

    def piece(self, number: int) -> npt.NDArray[np.uint16 | np.uint32]:
        """Returns the tokens of one piece, its bos first."""
        return self.tokens[int(self.piece_offsets[number]) : int(self.piece_offsets[number + 1])]

    def part(self, begin: int, end: int) -> "TokenStore":
        """Returns the pieces from `begin` up to `end` as a store."""
        offsets = self.piece_offsets[begin : end + 1]
        return TokenStore(
            tokens=self.tokens[int(offsets[0]) : int(offsets[-1])],
            piece_offsets=offsets - offsets[0],
            piece_bytes=self.piece_bytes[begin:end],
            digests=self.digests[begin:end],
            documents=self.documents[begin:end],
        )


def token_dtype(vocab_size: int) -> "np.dtype[np.uint16] | np.dtype[np.uint32]":
    """Returns the smallest little-endian unsigned type that holds every id below `vocab_size`."""
    return np.dtype("<u2") if vocab_size < 1 << 16 else np.dtype("<u4")


class StoreWriter:
    """Writes a store as files `<name>.*` into a folder. A context manager; leaving it completes the files."""

    def __init__(self, folder: Path, name: str, vocab_size: int) -> None:
        """Creates the file of tokens."""
        self._base = folder / name
        self._dtype = token_dtype(vocab_size)
        self._file = self._path("tokens").open("wb")
        self._sizes: list[Ints] = [np.zeros(1, dtype=np.int64)]
        self._bytes: list[Ints] = [np.zeros(0, dtype=np.int64)]
        self._digests: list[Digests] = [np.zeros((0, 2), dtype=np.uint64)]
        self._documents: list[Ints] = [np.zeros(0, dtype=np.int64)]

    def __enter__(self) -> Self:
        """Returns the writer itself."""
        return self

    def append(self, tokens: npt.NDArray[Any], sizes: Ints, num_bytes: Ints, digests: Digests, documents: Ints) -> None:
        """Adds M pieces.

        Args:
            tokens: (all tokens,) of the pieces in a row, each with its bos.
            sizes: (M,) tokens of each piece.
            num_bytes: (M,) UTF-8 bytes of each piece.
            digests: (M, 2) digest of each piece.
            documents: (M,) row of each piece's document in `Corpus.documents`.
        """
        self._file.write(tokens.astype(self._dtype, copy=False).tobytes())
        self._sizes.append(sizes)
        self._bytes.append(num_bytes)
        self._digests.append(digests)
        self._documents.append(documents)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Writes the tables and syncs all files to disk, unless an error ended the writing."""
        with self._file:
            if error is not None:
                return
            self._file.flush()
            os.fsync(self._file.fileno())
        offsets = np.cumsum(np.concatenate(self._sizes), dtype=np.int64)
        self._save("offsets", offsets)
        self._save("bytes", np.concatenate(self._bytes).astype(np.int64))
        self._save("digests", np.concatenate(self._digests))
        self._save("documents", np.concatenate(self._documents).astype(np.int64))
        meta = {"dtype": self._dtype.str, "tokens": int(offsets[-1]), "pieces": int(offsets.size) - 1}
        self._path("json").write_text(json.dumps(meta), encoding="utf-8")

    def _save(self, table: str, values: npt.NDArray[Any]) -> None:
        with self._path(f"{table}.npy").open("wb") as file:
            np.save(file, values, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())

    def _path(self, suffix: str) -> Path:
        return self._base.with_name(f"{self._base.name}.{suffix}")


def read_store(folder: Path, name: str) -> TokenStore:
    """Returns the store `name` in `folder`, memory-mapped and read-only. It may be empty.

    Raises:
        DataError: a file is missing or has the wrong size.
    """
    try:
        meta: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        dtype = np.dtype(meta["dtype"])
        tokens: npt.NDArray[Any] = (
            np.memmap(folder / f"{name}.tokens", dtype=dtype, mode="r") if meta["tokens"] else np.zeros(0, dtype=dtype)
        )
        offsets, sizes, digests, documents = (
            np.load(folder / f"{name}.{table}.npy", mmap_mode="r" if meta["pieces"] else None, allow_pickle=False)
            for table in ("offsets", "bytes", "digests", "documents")
        )
        whole = (
            tokens.size == meta["tokens"] == offsets[-1]
            and sizes.size == meta["pieces"] == offsets.size - 1 == documents.size
            and digests.shape == (sizes.size, 2)
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError) as error:
        raise DataError(f"token store {folder / name} cannot be read: {error}; delete {folder}") from error
    if not whole:
        raise DataError(f"token store {folder / name} is not whole; delete {folder}")
    return TokenStore(tokens, offsets, sizes, digests, documents)
