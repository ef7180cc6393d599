"""How one source's pieces become rows of T + 1 tokens: concatenated and cut, or packed whole.

Shapes: T = context, R = rows, N = pieces. A row's inputs are its first T tokens and its targets the last T. Whatever
the layout, a row is a pure function of (tokens, context, seed, epoch, number), and an epoch has the same number of
rows every time.
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
    """A run of one piece's tokens in a row: `tokens` of them, from the piece's token `start` on (0 is its bos)."""

    piece: int
    start: int
    tokens: int


class Layout(Protocol):
    """The rows of one source.

    Attributes:
        context: T.
        rows_per_epoch: rows until every piece was given out once.
        targets_per_row: how many targets of a row are tokens of pieces, on average: what a row is worth.
    """

    context: int
    rows_per_epoch: int
    targets_per_row: float

    def order(self, epoch: int) -> Ints:
        """Returns what `rows` needs to know about an epoch."""
        ...

    def rows(self, order: Ints, numbers: Ints) -> Ints:
        """Returns (R, T + 1) the rows `numbers` of the epoch with this `order`."""
        ...

    def parts(self, order: Ints, number: int) -> list[Part]:
        """Returns where a row's tokens come from, in order, padding left out."""
        ...


def make_layout(packing: Packing, store: TokenStore, context: int, seed: int) -> Layout:
    """Returns the rows of `store`.

    Raises:
        DataError: an empty store or an impossible context or seed.
    """
    if store.num_tokens == 0:
        raise DataError("a stream over 0 tokens; give the node some text")
    if context < 1 or seed < 0:
        raise DataError(f"context {context} must be positive, seed {seed} not negative")
    return Windows(store, context, seed) if packing == "concatenate" else WholePieces(store, context, seed)


class Windows:
    """Concatenate and cut, as in nanoGPT: windows over the flat token array, over piece borders, which a bos marks.

    Each window starts where the targets of the one before ended. The few tokens that fill no window are left out at
    another end each epoch. A store shorter than one window is repeated until it fills one.
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
        """Returns the first token of every window of the epoch."""
        generator = np.random.default_rng([self._seed, epoch])
        left_over = self._tokens.size - 1 - self.rows_per_epoch * self.context
        offset = int(generator.integers(left_over + 1))
        return offset + self.context * generator.permutation(self.rows_per_epoch)

    def rows(self, order: Ints, numbers: Ints) -> Ints:
        """Returns the windows `numbers`, copied token run by token run."""
        rows = np.empty((len(numbers), self.context + 1), dtype=np.int64)
        for row, start in enumerate(order[numbers].tolist()):
            rows[row] = self._tokens[start : start + self.context + 1]
        return rows

    def parts(self, order: Ints, number: int) -> list[Part]:
        """Returns the runs of pieces in a window."""
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


class WholePieces:
    """Whole pieces, best fit: a row holds as many whole pieces as fit, and ends in padding.

    Every item of a row begins with bos, and padding is bos again, so document borders and targets that do not count
    can be told from the tokens alone: a bos begins a document, and is never a target. A piece of more than T tokens
    is cut into runs of T that each get a bos. Which pieces meet in a row is drawn anew each epoch.
    """

    def __init__(self, store: TokenStore, context: int, seed: int) -> None:
        self._store, self.context, self._seed = store, context, seed
        sizes = np.diff(store.piece_offsets) - 1
        runs = np.maximum(1, -(-sizes // context))
        self._item_piece = np.repeat(np.arange(sizes.size), runs)
        number_in_piece = np.arange(self._item_piece.size) - np.repeat(np.cumsum(runs) - runs, runs)
        # Of an item: its first token in the piece after the bos, and its tokens with a bos.
        self._item_start = number_in_piece * context
        self._item_size = 1 + np.minimum(context, sizes[self._item_piece] - self._item_start)
        self._packed = pack(self._item_size, context + 1)
        self._by_size = np.argsort(self._item_size, kind="stable")
        self._first_of_size = np.searchsorted(self._item_size[self._by_size], np.arange(context + 3))
        self.rows_per_epoch = self._packed.num_rows
        self.targets_per_row = max(1.0, float(sizes.sum())) / self.rows_per_epoch

    def order(self, epoch: int) -> Ints:
        """Returns (slots + rows,): the item of every slot of the plan, then the plan's row of every row."""
        generator = np.random.default_rng([self._seed, epoch])
        by_size = self._by_size.copy()
        for begin, end in zip(self._first_of_size[:-1], self._first_of_size[1:], strict=True):
            if end - begin > 1:
                by_size[begin:end] = generator.permutation(by_size[begin:end])
        # The plan says only sizes: its slots of one size take the shuffled items of that size in turn.
        items = np.empty_like(by_size)
        items[np.argsort(self._packed.slot_size, kind="stable")] = by_size
        return np.concatenate([items, generator.permutation(self.rows_per_epoch)])

    def rows(self, order: Ints, numbers: Ints) -> Ints:
        """Returns the rows `numbers`, padded with bos."""
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
        planned = int(order[self._packed.slot_size.size + number])
        begin, end = self._packed.row_slots[planned : planned + 2]
        found: list[int] = order[begin:end].tolist()
        return found
