"""Tokens on disk: one flat memory-mapped array and where its pieces lie."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trfmoe_core.errors import DataError

Offsets = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TokenStore:
    """The pieces of one side of a corpus.

    Attributes:
        tokens: (num_tokens,) uint16 or uint32, memory-mapped when loaded; every piece is bos followed by its ids.
        piece_offsets: (pieces + 1,) where each piece starts in `tokens`; the last entry is num_tokens.
        piece_bytes: (pieces,) UTF-8 bytes of each piece.
    """

    tokens: npt.NDArray[np.uint16 | np.uint32]
    piece_offsets: Offsets
    piece_bytes: Offsets

    @property
    def num_tokens(self) -> int:
        """Number of tokens, each piece's bos included."""
        return int(self.tokens.size)

    @property
    def num_bytes(self) -> int:
        """UTF-8 bytes of all pieces."""
        return int(self.piece_bytes.sum())

    @property
    def num_pieces(self) -> int:
        """Number of pieces."""
        return int(self.piece_bytes.size)

    def pieces_within(self, max_tokens: int) -> int:
        """Returns how many whole pieces from the first on fit into `max_tokens`, at least one."""
        return max(1, int(np.searchsorted(self.piece_offsets, max_tokens, side="right")) - 1)


def token_dtype(vocab_size: int) -> type[np.uint16] | type[np.uint32]:
    """Returns the smallest type that holds every id below `vocab_size`."""
    return np.uint16 if vocab_size < 1 << 16 else np.uint32


def write_store(
    folder: Path, name: str, pieces: Iterable[tuple[npt.NDArray[np.int32], int]], bos_id: int, vocab_size: int
) -> None:
    """Writes `pieces`, pairs of (ids, UTF-8 bytes), as `<name>.*` into `folder`, one piece in memory at a time."""
    dtype = np.dtype(token_dtype(vocab_size)).newbyteorder("<")
    offsets, sizes = [0], []
    bos = np.array([bos_id], dtype=dtype).tobytes()
    with (folder / f"{name}.tokens").open("wb") as file:
        for ids, num_bytes in pieces:
            file.write(bos)
            file.write(ids.astype(dtype).tobytes())
            offsets.append(offsets[-1] + ids.size + 1)
            sizes.append(num_bytes)
    np.save(folder / f"{name}.offsets.npy", np.array(offsets, dtype=np.int64), allow_pickle=False)
    np.save(folder / f"{name}.bytes.npy", np.array(sizes, dtype=np.int64), allow_pickle=False)
    meta = {"dtype": dtype.str, "tokens": offsets[-1], "pieces": len(sizes)}
    (folder / f"{name}.json").write_text(json.dumps(meta), encoding="utf-8")


def read_store(folder: Path, name: str) -> TokenStore:
    """Returns the store `name` of `folder`, its tokens memory-mapped and read-only.

    Raises:
        DataError: a file is missing, or its size is not what was written.
    """
    try:
        meta: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        tokens = np.memmap(folder / f"{name}.tokens", dtype=np.dtype(meta["dtype"]), mode="r")
        offsets = np.load(folder / f"{name}.offsets.npy", allow_pickle=False)
        sizes = np.load(folder / f"{name}.bytes.npy", allow_pickle=False)
        whole = (
            tokens.size == meta["tokens"] == offsets[-1]
            and sizes.size == meta["pieces"] == offsets.size - 1
            and sizes.size > 0
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError) as error:
        raise DataError(f"token store {folder / name} cannot be read: {error}; delete {folder}") from error
    if not whole:
        raise DataError(f"token store {folder / name} is not whole; delete {folder}")
    return TokenStore(tokens=tokens, piece_offsets=offsets, piece_bytes=sizes)
