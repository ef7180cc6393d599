"""Packed batches at an exact cursor, and the windows that an evaluation predicts.

Shapes: B = sequences a batch, T = context, W = evaluation windows.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trfmoe_core.data.store import TokenStore
from trfmoe_core.errors import DataError


@dataclass(frozen=True, order=True)
class Cursor:
    """Where a stream stands: `window` windows of epoch `epoch` have been given out."""

    epoch: int = 0
    window: int = 0


class BatchStream:
    """An endless stream of packed batches, a pure function of (tokens, context, seed, cursor).

    An epoch lays windows of T + 1 tokens over the flat token array, each starting where the previous one's targets
    ended, and visits every window once in an order drawn from (seed, epoch). The few tokens that fill no window are
    left out at another end each epoch. Windows run over piece borders, which the bos token marks (concatenate and
    chunk, as in nanoGPT). A store shorter than one window is repeated until it fills one.
    """

    def __init__(
        self, store: TokenStore, context: int, batch_size: int, seed: int, cursor: Cursor | None = None
    ) -> None:
        """Starts the stream at `cursor`, the very beginning by default.

        Raises:
            DataError: an empty store, or a cursor that no stream over this store can have.
        """
        if store.num_tokens == 0:
            raise DataError("a stream over 0 tokens; give the node some text")
        if context < 1 or batch_size < 1 or seed < 0:
            raise DataError(f"context {context} and batch size {batch_size} must be positive, seed {seed} not negative")
        tokens = store.tokens
        if tokens.size < context + 1:
            tokens = np.tile(tokens, -(-(context + 1) // tokens.size))
        self._tokens = tokens
        self._context = context
        self._batch_size = batch_size
        self._seed = seed
        self.windows_per_epoch = (tokens.size - 1) // context
        self._cursor = cursor if cursor is not None else Cursor()
        if self._cursor.epoch < 0 or not 0 <= self._cursor.window <= self.windows_per_epoch:
            raise DataError(
                f"cursor {self._cursor} lies outside epochs of {self.windows_per_epoch} windows: "
                "the data or the context changed; start from Cursor(0, 0)"
            )
        self._starts = self._epoch_starts(self._cursor.epoch)

    @property
    def cursor(self) -> Cursor:
        """The position after the last batch; a new stream there continues exactly."""
        return self._cursor

    def next(self) -> npt.NDArray[np.int64]:
        """Returns the next batch, (B, T + 1): inputs are `[:, :-1]`, targets `[:, 1:]`."""
        batch = np.empty((self._batch_size, self._context + 1), dtype=np.int64)
        epoch, window = self._cursor.epoch, self._cursor.window
        for row in range(self._batch_size):
            if window == self.windows_per_epoch:
                epoch, window = epoch + 1, 0
                self._starts = self._epoch_starts(epoch)
            start = self._starts[window]
            batch[row] = self._tokens[start : start + self._context + 1]
            window += 1
        self._cursor = Cursor(epoch, window)
        return batch

    def _epoch_starts(self, epoch: int) -> npt.NDArray[np.int64]:
        generator = np.random.default_rng([self._seed, epoch])
        left_over = self._tokens.size - 1 - self.windows_per_epoch * self._context
        offset = int(generator.integers(left_over + 1))
        return offset + self._context * generator.permutation(self.windows_per_epoch)


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """What one evaluation predicts.

    Attributes:
        tokens: (W, T + 1) int64; inputs are `[:, :-1]`, targets `[:, 1:]`.
        mask: (W, T) bool; False for targets that do not count: padding, and the bos between two pieces.
        num_bytes: UTF-8 bytes of the predicted pieces: nats over all counted targets / ln 2 / num_bytes is bits per
            byte, comparable over tokenizers.
    """

    tokens: npt.NDArray[np.int64]
    mask: npt.NDArray[np.bool_]
    num_bytes: int

    @property
    def num_targets(self) -> int:
        """Number of predicted tokens."""
        return int(self.mask.sum())


def evaluation_windows(store: TokenStore, context: int, max_tokens: int) -> EvaluationSet:
    """Returns windows over whole pieces up to `max_tokens` (at least one piece).

    Every token of a piece after its bos is predicted exactly once, so the loss belongs to exactly `num_bytes` bytes.
    """
    if store.num_tokens == 0:
        raise DataError("an evaluation over 0 tokens; give the node some text")
    if context < 1:
        raise DataError(f"context {context} must be positive")
    pieces = store.pieces_within(max_tokens)
    end = int(store.piece_offsets[pieces])
    windows = max(1, -(-(end - 1) // context))
    flat = np.full(windows * context + 1, store.tokens[0], dtype=np.int64)
    flat[:end] = store.tokens[:end]
    counts = np.zeros(windows * context + 1, dtype=np.bool_)
    counts[:end] = True
    counts[store.piece_offsets[:pieces]] = False
    rows = np.arange(windows)[:, None] * context + np.arange(context + 1)[None, :]
    return EvaluationSet(tokens=flat[rows], mask=counts[rows[:, 1:]], num_bytes=int(store.piece_bytes[:pieces].sum()))
