"""An endless stream of training batches at an exact cursor, out of one source or a mixture of several.

Shapes: B = sequences a batch, T = context, S = sources.
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
from trfmoe_core.data.batches.rows import Ints, Layout, Packing, Part, make_layout
from trfmoe_core.data.batches.store import TokenStore
from trfmoe_core.errors import DataError

AHEAD = 4
"""Batches that are got ready while the one before is trained on, for each worker."""


@dataclass(frozen=True, order=True)
class Cursor:
    """Where one source stands: `row` rows of epoch `epoch` have been given out."""

    epoch: int = 0
    row: int = 0


@dataclass(frozen=True)
class Feed:
    """One source of a stream: its rows, its weight by tokens, and whether it is given out only once.

    `mixture.Mixture` says what becomes of a source that `stops`.
    """

    layout: Layout
    weight: float = 1.0
    stops: bool = False


@dataclass(frozen=True)
class Row:
    """Where one row of a batch comes from."""

    source: int
    cursor: Cursor


class BatchStream:
    """Batches of B rows, a pure function of (feeds, batch size, state): the same whatever the number of workers.

    Each source keeps a `Cursor`: its epoch and the rows of it that were given out. Which source gives the next row
    follows from the cursors alone, so they are the whole state, and a stream that starts from the `state` of another
    goes on token for token.

    Args:
        feeds: the sources, whose order is part of the state's meaning.
        batch_size: B.
        state: what `state()` of an earlier stream over the same feeds returned; None starts from the beginning.
        workers: threads that get the next batches ready; 0 gets each when it is asked for.
        ignored_target: the token that never counts as a target, where rows hold padding.

    Raises:
        DataError: no feeds, no batch size, or a state that no stream over these feeds can have.

    Attributes:
        feeds: the sources.
        waited_s: seconds that `next` has kept its callers waiting so far.
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
            # The mixture counts rows, and a row of one source may hold fewer tokens than a row of another.
            weights=[feed.weight / feed.layout.targets_per_row for feed in feeds],
            lengths=[feed.layout.rows_per_epoch for feed in feeds],
            stops=[feed.stops for feed in feeds],
        )
        self._orders = [lru_cache(maxsize=2)(feed.layout.order) for feed in feeds]
        self._given = self._restored(state)
        self._planned = list(self._given)
        self._workers = ThreadPoolExecutor(workers, "trfmoe-batches") if workers else None
        self._ahead = AHEAD * workers
        self._waiting: deque[tuple[list[Row], list[int], Future[Ints]]] = deque()
        self.waited_s = 0.0
        self.ignored_target = ignored_target

    @property
    def cursors(self) -> list[Cursor]:
        """The position of every source after the last batch that was given out."""
        return [Cursor(*divmod(given, length)) for given, length in zip(self._given, self._lengths, strict=True)]

    @property
    def rows_per_epoch(self) -> int:
        """Rows of all sources together, each once."""
        return sum(self._lengths)

    def state(self) -> dict[str, Any]:
        """Returns, as plain JSON, what a new stream over the same feeds needs to go on after the last batch."""
        cursors = [{"epoch": cursor.epoch, "row": cursor.row} for cursor in self.cursors]
        return {"cursors": cursors, "rows_per_epoch": list(self._lengths)}

    def next(self) -> Ints:
        """Returns the next batch, (B, T + 1): inputs are `[:, :-1]`, targets `[:, 1:]`."""
        started = time.perf_counter()
        while len(self._waiting) < max(1, self._ahead):
            self._waiting.append(self._ask())
        _, self._given, batch = self._waiting.popleft()
        values = batch.result()
        self.waited_s += time.perf_counter() - started
        return values

    def skip(self, batches: int) -> None:
        """Goes on as if that many batches had been given out; only at the beginning of a stream."""
        for _ in range(batches):
            self._plan(self._given)
        self._planned = list(self._given)

    def upcoming(self) -> list[Row]:
        """Returns where the rows of the next batch come from, without giving it out."""
        if self._waiting:
            return self._waiting[0][0]
        return self._plan(list(self._given))

    def parts(self, row: Row) -> list[Part]:
        """Returns which pieces of its source a row consists of."""
        order = self._orders[row.source](row.cursor.epoch)
        return self.feeds[row.source].layout.parts(order, row.cursor.row)

    def close(self) -> None:
        """Ends the workers; the stream cannot be used any more."""
        if self._workers is not None:
            self._workers.shutdown(wait=True, cancel_futures=True)

    @property
    def _lengths(self) -> Sequence[int]:
        return self._mixture.lengths

    def _restored(self, state: Mapping[str, Any] | None) -> list[int]:
        """Returns the rows that each source has given out."""
        if state is None:
            return [0] * len(self.feeds)
        if state.get("rows_per_epoch") != list(self._lengths):
            raise DataError(
                f"this place in the data belongs to sources of {state.get('rows_per_epoch')} rows an epoch, and these "
                f"have {list(self._lengths)}: the data, the context or the packing changed; begin anew"
            )
        given = []
        for cursor, length in zip(state["cursors"], self._lengths, strict=True):
            if cursor["epoch"] < 0 or not 0 <= cursor["row"] < length:
                raise DataError(f"cursor {cursor} lies outside epochs of {length} rows; begin anew")
            given.append(cursor["epoch"] * length + cursor["row"])
        return given

    def _ask(self) -> tuple[list[Row], list[int], Future[Ints]]:
        """Plans a batch and has it got ready; returns its rows, where the stream stands after it, and the batch."""
        rows = self._plan(self._planned)
        after = list(self._planned)
        if self._workers is not None:
            return rows, after, self._workers.submit(self._assemble, rows)
        done: Future[Ints] = Future()
        done.set_result(self._assemble(rows))
        return rows, after, done

    def _plan(self, given: list[int]) -> list[Row]:
        """Returns the rows of the batch after `given`, which it moves on."""
        rows = []
        for _ in range(self._batch_size):
            source = self._mixture.draw(given) if len(self.feeds) > 1 else 0
            rows.append(Row(source, Cursor(*divmod(given[source], self._lengths[source]))))
            given[source] += 1
        return rows

    def _assemble(self, rows: Sequence[Row]) -> Ints:
        """Returns the tokens of planned rows. Safe in any thread: nothing but a cache of orders is written."""
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

    Raises:
        DataError: an empty store, impossible sizes, or a state that does not belong to it.
    """
    layout = make_layout(packing, store, context, seed)
    ignored = int(store.tokens[0]) if packing == "best_fit" else None
    return BatchStream([Feed(layout)], batch_size, state, workers, ignored)
