"""A baseline for models: how well an add-one byte bigram of the training text predicts the held-out text.

Shapes: P = previous byte or start symbol (257), B = byte (256)."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

START = 256
_RUN_BYTES = 1 << 20


class ByteBigram:
    """P(byte | previous byte) = (count + 1) / (total + 256). A piece's first byte follows the start symbol."""

    def __init__(self, counts_PB: npt.NDArray[np.int64] | None = None) -> None:
        """Starts with the pair counts `counts_PB`, or with none, which makes every byte cost 8 bits."""
        self.counts_PB: npt.NDArray[np.int64] = np.zeros((257, 256), dtype=np.int64) if counts_PB is None else counts_PB

    def fit(self, pieces: Iterable[bytes]) -> None:
        """Counts the byte pairs of `pieces`."""
        for run in _runs(pieces):
            self.counts_PB += np.bincount(_pairs(run), minlength=257 * 256).reshape(257, 256)

    def bits_per_byte(self, pieces: Iterable[bytes]) -> float:
        """Returns the mean cost of a byte of `pieces` in bits; 0.0 if there are none."""
        totals_P1 = self.counts_PB.sum(axis=1, keepdims=True)
        bits = -(np.log2(self.counts_PB + 1.0) - np.log2(totals_P1 + 256.0)).reshape(-1)
        cost, num_bytes = 0.0, 0
        for run in _runs(pieces):
            pairs = _pairs(run)
            cost += float(bits[pairs].sum())
            num_bytes += pairs.size
        return cost / num_bytes if num_bytes else 0.0


def _runs(pieces: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Groups the pieces in runs of about `_RUN_BYTES`, which numpy handles at once."""
    run: list[bytes] = []
    size = 0
    for piece in pieces:
        run.append(piece)
        size += len(piece)
        if size >= _RUN_BYTES:
            yield run
            run, size = [], 0
    yield run


def _pairs(pieces: Sequence[bytes]) -> npt.NDArray[np.int64]:
    """Returns `256 * previous + byte` for every byte of the pieces."""
    values = np.frombuffer(b"".join(pieces), dtype=np.uint8)
    pairs = np.empty(values.size, dtype=np.int64)
    pairs[1:] = values[:-1]
    ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
    starts = np.concatenate([[0], ends[:-1]])
    pairs[starts[starts < ends]] = START
    pairs *= 256
    pairs += values
    return pairs
