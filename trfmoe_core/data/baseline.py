"""The yardstick of a corpus: how well an add-one byte bigram of the training text predicts the held-out text."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

START = 256
_CHUNK_BYTES = 1 << 20


class ByteBigram:
    """P(byte | previous byte) = (count + 1) / (total + 256); a piece's first byte follows a start symbol of its own."""

    def __init__(self, counts_PB: npt.NDArray[np.int64] | None = None) -> None:
        """Starts with these counts, else with none: then every byte costs 8 bits."""
        self.counts_PB: npt.NDArray[np.int64] = np.zeros((257, 256), dtype=np.int64) if counts_PB is None else counts_PB

    def fit(self, pieces: Iterable[bytes]) -> None:
        """Adds the byte pairs of `pieces`."""
        waiting: list[npt.NDArray[np.int64]] = []
        size = 0
        for piece in pieces:
            waiting.append(_pairs(piece))
            size += len(piece)
            if size >= _CHUNK_BYTES:
                self._count(waiting)
                waiting, size = [], 0
        self._count(waiting)

    def bits_per_byte(self, pieces: Iterable[bytes]) -> float:
        """Returns the mean cost of a byte of `pieces` in bits; 0.0 where there are none."""
        totals_P1 = self.counts_PB.sum(axis=1, keepdims=True)
        bits = -(np.log2(self.counts_PB + 1.0) - np.log2(totals_P1 + 256.0)).reshape(-1)
        cost, num_bytes = 0.0, 0
        for piece in pieces:
            cost += float(bits[_pairs(piece)].sum())
            num_bytes += len(piece)
        return cost / num_bytes if num_bytes else 0.0

    def _count(self, pairs: list[npt.NDArray[np.int64]]) -> None:
        if pairs:
            self.counts_PB += np.bincount(np.concatenate(pairs), minlength=257 * 256).reshape(257, 256)


def _pairs(piece: bytes) -> npt.NDArray[np.int64]:
    """Returns previous * 256 + byte for every byte of the piece."""
    values = np.frombuffer(piece, dtype=np.uint8).astype(np.int64)
    previous = np.empty_like(values)
    previous[:1] = START
    previous[1:] = values[:-1]
    return previous * 256 + values
