"""An endless stream of training batches from one source or several, which can continue at an exact position.

Shapes: B = rows per batch, T = context.
"""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from trfmoe_core.data.batches.mixture import Mixture
from trfmoe_core.data.batches.rows import Ints, Packing, Part, RowLayout, make_layout
from trfmoe_core.data.batches.store import TokenStore
from trfmoe_core.errors import DataError

BATCHES_AHEAD = 4
"""Batches that each worker thread prepares ahead."""


@dataclass(frozen=True, order=True)
class Cursor:
    """Position in one source: `row` rows of epoch `epoch` have been given out."""

    epoch: int = 0
    row: int = 0


@dataclass(frozen=True)
class Feed:
    """One source of a stream.

    Attributes:
        layout: its rows.
        weight: its share of the tokens, relative to the other sources.
        stops: True: its rows are given out once (`mixture.Mixture`).
    """

    layout: RowLayout
    weight: float = 1.0
    stops: bool = False


@dataclass(frozen=True)
class Row:
    """Where a row of a batch comes from: the index of its source, and its position there."""

    source: int
    cursor: Cursor


class BatchStream:
    """Batches of B rows. They depend on (feeds, batch size, state) only, and not on the number of workers.

    The state consists of one `Cursor` per source, because they determine which source gives the next row. A stream that
    starts with the state of another one continues it token for token.

    Args:
        feeds: the sources, in an order that belongs to the state.
        batch_size: B.
        state: result of `state()` of an earlier stream over the same feeds; None starts at the beginning.
        workers: threads that prepare the next batches; 0 prepares each batch when it is requested.
        ignored_target: a token that never counts as a target, if rows have padding.

    Raises:
        DataError: there are no feeds, the batch size is not positive, or the state belongs to other feeds.

    Attributes:
        feeds: the sources.
        waited_s: seconds that callers of `next` have waited so far.
        ignored_target: as given.
    """

    def __init__(
        self,
        feeds: Sequence[Feed],
        batch_size: int,
        state: Mapping[str, Any] | None = None,
        workers: int = 0,
        ignored_target: int | None = None,
    ) -> None:
        if not feeds or batch_size < 1:
            raise DataError(f"a stream of {len(feeds)} sources and batch size {batch_size}: both must be positive")
        self.feeds = list(feeds)
        self._batch_size = batch_size
        self._mixture = Mixture(
            # The mixture counts rows, and rows of different sources may hold different numbers of tokens.
            weights=[feed.weight / feed.layout.targets_per_row for feed in feeds],
            lengths=[feed.layout.rows_per_epoch for feed in feeds],
            stops=[feed.stops for feed in feeds],
        )
        self._orders = [lru_cache(maxsize=2)(feed.layout.order) for feed in feeds]
        self._given = self._restored(state)
        self._planned = list(self._given)
        self._workers = ThreadPoolExecutor(workers, "trfmoe-batches") if workers else None
        self._ahead = BATCHES_AHEAD * workers
        self._waiting: deque[tuple[list[Row], list[int], Future[Ints]]] = deque()
        self.waited_s = 0.0
        self.ignored_target = ignored_target

    @property
    def cursors(self) -> list[Cursor]:
        """Position in every source after the last batch that was given out."""
        return [Cursor(*divmod(given, length)) for given, length in zip(self._given, self._lengths, strict=True)]

    @property
    def rows_per_epoch(self) -> int:
        """Rows per epoch of all sources together."""
        return sum(self._lengths)

    def state(self) -> dict[str, Any]:
        """Returns the position after the last batch as plain JSON, for a new stream over the same feeds."""
        cursors = [{"epoch": cursor.epoch, "row": cursor.row} for cursor in self.cursors]
        return {"cursors": cursors, "rows_per_epoch": list(self._lengths)}

    def next(self) -> Ints:
        """Returns the next batch (B, T + 1). Inputs are `[:, :-1]`, targets `[:, 1:]`."""
        started = time.perf_counter()
        while len(self._waiting) < max(1, self._ahead):
            self._waiting.append(self._prepare())
        _, self._given, batch = self._waiting.popleft()
        values = batch.result()
        self.waited_s += time.perf_counter() - started
        return values

    def skip(self, batches: int) -> None:
        """Skips that many batches. Allowed only before the first call of `next`."""
        for _ in range(batches):
            self._plan(self._given)
        self._planned = list(self._given)

    def upcoming(self) -> list[Row]:
        """Returns where the rows of the next batch come from, without giving the batch out."""
        if self._waiting:
            return self._waiting[0][0]
        return self._plan(list(self._given))

    def parts(self, row: Row) -> list[Part]:
        """Returns the parts of pieces that make up a row."""
        order = self._orders[row.source](row.cursor.epoch)
        return self.feeds[row.source].layout.parts(order, row.cursor.row)

    def close(self) -> None:
        """Ends the workers. The stream cannot be used afterwards."""
        if self._workers is not None:
            self._workers.shutdown(wait=True, cancel_futures=True)

    @property
    def _lengths(self) -> Sequence[int]:
        return self._mixture.lengths

    def _restored(self, state: Mapping[str, Any] | None) -> list[int]:
        """Returns the number of rows that each source has given out, by `state`."""
        if state is None:
            return [0] * len(self.feeds)
        if state.get("rows_per_epoch") != list(self._lengths):
            raise DataError(
                f"this place in the data belongs to sources of {state.get('rows_per_epoch')} rows an epoch, and these "
                f"have {list(self._lengths)}: the data, the context or the packing changed; start again"
            )
        given = []
        for cursor, length in zip(state["cursors"], self._lengths, strict=True):
            if cursor["epoch"] < 0 or not 0 <= cursor["row"] < length:
                raise DataError(f"cursor {cursor} lies outside epochs of {length} rows; start again")
            given.append(cursor["epoch"] * length + cursor["row"])
        return given

    def _prepare(self) -> tuple[list[Row], list[int], Future[Ints]]:
        """Plans a batch and starts preparing it. Returns its rows, the rows given out after it, and the batch."""
        rows = self._plan(self._planned)
        after = list(self._planned)
        if self._workers is not None:
            return rows, after, self._workers.submit(self._assemble, rows)
        done: Future[Ints] = Future()
        done.set_result(self._assemble(rows))
        return rows, after, done

    def _plan(self, given: list[int]) -> list[Row]:
        """Returns the rows of the next batch and adds them to `given`."""
        rows = []
        for _ in range(self._batch_size):
            source = self._mixture.draw(given) if len(self.feeds) > 1 else 0
            rows.append(Row(source, Cursor(*divmod(given[source], self._lengths[source]))))
            given[source] += 1
        return rows

    def _assemble(self, rows: Sequence[Row]) -> Ints:
        """Returns the tokens of planned rows. Any thread may call it: it changes nothing but a cache of orders."""
        parts: list[tuple[list[int], Ints]] = []
        for source, epoch in dict.fromkeys((row.source, row.cursor.epoch) for row in rows):
            places = [i for i, row in enumerate(rows) if (row.source, row.cursor.epoch) == (source, epoch)]
            numbers = np.array([rows[place].cursor.row for place in places], dtype=np.int64)
            parts.append((places, self.feeds[source].layout.rows(self._orders[source](epoch), numbers)))
        batch = np.empty((len(rows), parts[0][1].shape[1]), dtype=np.int64)
        for places, values in parts:
            batch[places] = values
        return batch


def stream_over(
    store: TokenStore,
    context: int,
    batch_size: int,
    seed: int,
    state: Mapping[str, Any] | None = None,
    packing: Packing = "concatenate",
    workers: int = 0,
) -> BatchStream:
    """Returns a stream over a single store.

    Args:
        store: the pieces, at least one.
        context: T.
        batch_size: B.
        seed: of the order of the rows.
        state: result of `state()` of an earlier stream over the same store; None starts at the beginning.
        packing: how pieces become rows.
        workers: threads that prepare the next batches.

    Raises:
        DataError: the store is empty, a size is not positive, or the state belongs to another store.
    """
    layout = make_layout(packing, store, context, seed)
    ignored = int(store.tokens[0]) if packing == "best_fit" else None
    return BatchStream([Feed(layout)], batch_size, state, workers, ignored)
