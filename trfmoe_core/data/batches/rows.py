"""Makes rows of T + 1 tokens out of one source's pieces: concatenated and cut, or packed as whole pieces.

Shapes: T = context, R = rows. The inputs of a row are its first T tokens, the targets its last T. A row is a pure
function of (tokens, context, seed, epoch, number), and every epoch has the same number of rows.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from trfmoe_core.data.batches.best_fit import pack
from trfmoe_core.data.batches.store import TokenStore
from trfmoe_core.errors import DataError

Packing = Literal["concatenate", "best_fit"]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """A run of tokens in a row: `tokens` tokens of one piece, beginning with its token `start` (0 is its bos)."""

    piece: int
    start: int
    tokens: int


class RowLayout(Protocol):
    """The rows of one source, as the recipe's `data.packing` wants them.

    Attributes:
        context: T.
        rows_per_epoch: rows that hold every piece once.
        targets_per_row: mean number of targets in a row that are tokens of pieces and not padding.
    """

    context: int
    rows_per_epoch: int
    targets_per_row: float

    def order(self, epoch: int) -> Ints:
        """Returns the order of an epoch, which `rows` and `parts` need."""
        ...

    def rows(self, order: Ints, numbers: Ints) -> Ints:
        """Returns (R, T + 1) the rows with these `numbers` in the epoch with this `order`."""
        ...

    def parts(self, order: Ints, number: int) -> list[Part]:
        """Returns where the tokens of a row come from, in order and without padding."""
        ...


def make_layout(packing: Packing, store: TokenStore, context: int, seed: int) -> RowLayout:
    """Returns the rows of `store`.

    Args:
        packing: `concatenate` (`ConcatenatedRows`) or `best_fit` (`WholePieceRows`).
        store: the pieces, at least one.
        context: T.
        seed: of the order of the rows.

    Raises:
        DataError: the store is empty, the context not positive, or the seed negative.
    """
    if store.num_tokens == 0:
        raise DataError("a stream over 0 tokens; give the node some text")
    if context < 1 or seed < 0:
        raise DataError(f"context {context} must be positive, seed {seed} not negative")
    return (ConcatenatedRows if packing == "concatenate" else WholePieceRows)(store, context, seed)


class ConcatenatedRows:
    """Cuts the flat token array into rows, as nanoGPT does. Rows cross the borders of pieces, which a bos marks.

    Each row starts with the last target of the row before. The few tokens that fill no row are left out, at another
    place in every epoch. A store shorter than one row is repeated until it fills one.
    """

    def __init__(self, store: TokenStore, context: int, seed: int) -> None:
        self._store, self.context, self._seed = store, context, seed
        tokens = store.tokens
        if tokens.size < context + 1:
            tokens = np.tile(tokens, -(-(context + 1) // tokens.size))
        self._tokens = tokens
        self.rows_per_epoch = (tokens.size - 1) // context
        self.targets_per_row = float(context)

    def order(self, epoch: int) -> Ints:
        """Returns the position of the first token of every row of the epoch."""
        generator = np.random.default_rng([self._seed, epoch])
        left_over = self._tokens.size - 1 - self.rows_per_epoch * self.context
        offset = int(generator.integers(left_over + 1))
        return offset + self.context * generator.permutation(self.rows_per_epoch)

    def rows(self, order: Ints, numbers: Ints) -> Ints:
        """Returns (R, T + 1) the rows with these `numbers`."""
        rows = np.empty((len(numbers), self.context + 1), dtype=np.int64)
        for row, start in enumerate(order[numbers].tolist()):
            rows[row] = self._tokens[start : start + self.context + 1]
        return rows

    def parts(self, order: Ints, number: int) -> list[Part]:
        """Returns the runs of pieces in a row."""
        offsets, size = self._store.piece_offsets, self._store.num_tokens
        at, end = int(order[number]), int(order[number]) + self.context + 1
        found = []
        while at < end:
            place = at % size
            piece = int(np.searchsorted(offsets, place, side="right")) - 1
            run = min(end - at, int(offsets[piece + 1]) - place)
            found.append(Part(piece, place - int(offsets[piece]), run))
            at += run
        return found


class WholePieceRows:
    """Packs whole pieces into rows by best fit. A row ends with padding.

    Every item of a row begins with a bos, and padding is bos too, so the tokens alone show the borders of documents
    and the targets that do not count: a bos is never a target. A piece of more than T tokens is cut into items of T
    tokens, each after a bos. Which pieces share a row is drawn again in every epoch.
    """

    def __init__(self, store: TokenStore, context: int, seed: int) -> None:
        self._store, self.context, self._seed = store, context, seed
        sizes = np.diff(store.piece_offsets) - 1
        runs = np.maximum(1, -(-sizes // context))
        self._item_piece = np.repeat(np.arange(sizes.size), runs)
        number_in_piece = np.arange(self._item_piece.size) - np.repeat(np.cumsum(runs) - runs, runs)
        # Of every item: where it starts in its piece after the bos, and its number of tokens including a bos.
        self._item_start = number_in_piece * context
        self._item_size = 1 + np.minimum(context, sizes[self._item_piece] - self._item_start)
        self._plan = pack(self._item_size, context + 1)
        self._by_size = np.argsort(self._item_size, kind="stable")
        self._first_of_size = np.searchsorted(self._item_size[self._by_size], np.arange(context + 3))
        self.rows_per_epoch = self._plan.num_rows
        self.targets_per_row = max(1.0, float(sizes.sum())) / self.rows_per_epoch

    def order(self, epoch: int) -> Ints:
        """Returns (slots + rows,): for every slot of the plan its item, then for every row its row in the plan."""
        generator = np.random.default_rng([self._seed, epoch])
        by_size = self._by_size.copy()
        for begin, end in zip(self._first_of_size[:-1], self._first_of_size[1:], strict=True):
            if end - begin > 1:
                by_size[begin:end] = generator.permutation(by_size[begin:end])
        # The plan knows sizes only, so its slots of one size get the shuffled items of that size.
        items = np.empty_like(by_size)
        items[np.argsort(self._plan.slot_size, kind="stable")] = by_size
        return np.concatenate([items, generator.permutation(self.rows_per_epoch)])

    def rows(self, order: Ints, numbers: Ints) -> Ints:
        """Returns (R, T + 1) the rows with these `numbers`, padded with bos."""
        bos = int(self._store.tokens[0])
        rows = np.full((len(numbers), self.context + 1), bos, dtype=np.int64)
        offsets, tokens = self._store.piece_offsets, self._store.tokens
        for row, number in enumerate(numbers.tolist()):
            at = 0
            for item in self._items(order, number):
                size = int(self._item_size[item])
                start = int(offsets[self._item_piece[item]]) + 1 + int(self._item_start[item])
                rows[row, at + 1 : at + size] = tokens[start : start + size - 1]
                at += size
        return rows

    def parts(self, order: Ints, number: int) -> list[Part]:
        """Returns the pieces of a row."""
        return [
            Part(int(self._item_piece[item]), int(self._item_start[item]), int(self._item_size[item]))
            for item in self._items(order, number)
        ]

    def _items(self, order: Ints, number: int) -> list[int]:
        planned = int(order[self._plan.slot_size.size + number])
        begin, end = self._plan.row_slots[planned : planned + 2]
        found: list[int] = order[begin:end].tolist()
        return found
