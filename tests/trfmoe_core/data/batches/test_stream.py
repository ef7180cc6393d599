import json
import random
import time
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trfmoe_core.data.batches.stores import BOS, make_store
from trfmoe_core.data.batches.rows import ConcatenatedRows, Packing, make_layout
from trfmoe_core.data.batches.stream import BatchStream, Cursor, Feed, stream_over
from trfmoe_core.errors import DataError

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=12)


@given(SIZES, st.integers(1, 20), st.integers(1, 7), st.integers(0, 9), st.integers(0, 12))
def test_a_stream_goes_on_exactly_from_its_state(
    sizes: list[int], context: int, batch_size: int, seed: int, before: int
) -> None:
    store = make_store(sizes)
    one = stream_over(store, context, batch_size, seed)
    for _ in range(before):
        one.next()
    other = stream_over(store, context, batch_size, seed, json.loads(json.dumps(one.state())))
    for _ in range(6):
        batch = one.next()
        assert batch.shape == (batch_size, context + 1)
        assert batch.dtype == np.int64
        np.testing.assert_array_equal(batch, other.next())
        assert one.cursors == other.cursors


def mixed(packing: Packing, workers: int, state: Mapping[str, Any] | None = None) -> BatchStream:
    """Two shuffled sources with weights, one of which stops at its end; rows tell their source by their tokens."""
    sizes = random.Random(3).choices(range(1, 90), k=60)
    stores = [make_store(sizes[:40]), make_store(sizes[40:], first=30_000)]
    feeds = [
        Feed(make_layout(packing, stores[0], 24, 5), 2.0, stops=False),
        Feed(make_layout(packing, stores[1], 24, 6), 1.0, stops=True),
    ]
    return BatchStream(feeds, 5, state, workers)


@pytest.mark.parametrize("packing", ["concatenate", "best_fit"])
def test_interrupted_at_twenty_random_places_the_stream_is_the_same_token_for_token(packing: Packing) -> None:
    batches = 160
    with closing(mixed(packing, workers=0)) as whole:
        expected = [whole.next() for _ in range(batches)]
    places = sorted(random.Random(packing).sample(range(1, batches), 20))
    found: list[np.ndarray] = []
    state: Mapping[str, Any] | None = None
    for number, (begin, end) in enumerate(zip([0, *places], [*places, batches], strict=True)):
        # Another number of workers after every interruption, and always some batches got ready and thrown away.
        with closing(mixed(packing, workers=number % 4, state=state)) as stream:
            found += [stream.next() for _ in range(end - begin)]
            state = json.loads(json.dumps(stream.state()))
    assert len(found) == batches
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one, other)
    # The case is as hard as it says: both sources, several epochs, and the second ended.
    tokens = np.concatenate([batch[batch != BOS] for batch in expected])
    assert (tokens < 30_000).any()
    assert (tokens >= 30_000).any()
    assert state is not None
    assert state["cursors"][0]["epoch"] > 2
    assert state["cursors"][1] == {"epoch": 1, "row": 0}


@pytest.mark.parametrize("packing", ["concatenate", "best_fit"])
def test_shares_are_of_tokens_whatever_the_rows_hold(packing: Packing) -> None:
    stores = [make_store([23] * 400), make_store([9] * 900, first=30_000)]
    feeds = [Feed(make_layout(packing, store, 23, 1), weight) for store, weight in zip(stores, (1.0, 3.0), strict=True)]
    with closing(BatchStream(feeds, 8, workers=2)) as stream:
        tokens = np.concatenate([stream.next()[:, 1:] for _ in range(60)])
    tokens = tokens[tokens != BOS]
    assert (tokens >= 30_000).mean() == pytest.approx(0.75, abs=0.03)


def test_batch_size_does_not_change_the_order_and_epochs_differ() -> None:
    store = make_store([400])
    single, wide = stream_over(store, 8, 1, 3), stream_over(store, 8, 100, 3)
    rows = wide.next()
    np.testing.assert_array_equal(rows, np.concatenate([single.next() for _ in range(100)]))
    epoch = wide.rows_per_epoch
    assert rows[:epoch].tolist() != rows[epoch : 2 * epoch].tolist()
    assert stream_over(store, 8, 100, 4).next().tolist() != rows.tolist()


def test_upcoming_rows_are_those_of_the_next_batch() -> None:
    for workers in (0, 2):
        with closing(mixed("concatenate", workers)) as stream:
            for _ in range(3):
                stream.next()
            rows = stream.upcoming()
            assert rows == stream.upcoming()
            sources = [int(row[row != BOS][0]) >= 30_000 for row in stream.next()]
            assert [row.source for row in rows] == sources
            assert [sum(part.tokens for part in stream.parts(row)) for row in rows] == [25] * 5


def test_the_time_that_a_caller_waits_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = ConcatenatedRows.rows

    def slow_rows(self: ConcatenatedRows, order: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        time.sleep(0.02)
        return rows(self, order, numbers)

    monkeypatch.setattr(ConcatenatedRows, "rows", slow_rows)
    waited = []
    for workers in (0, 1):
        with closing(stream_over(make_store([400]), 8, 2, 0, workers=workers)) as stream:
            stream.next()
            before = stream.waited_s
            time.sleep(0.3)  # A worker has the next batches ready by then.
            for _ in range(3):
                stream.next()
            waited.append(stream.waited_s - before)
    assert waited[0] >= 3 * 0.02
    assert waited[1] < waited[0]


STATE = stream_over(make_store([50]), 8, 1, 0).state()


@pytest.mark.parametrize("cursor", [Cursor(-1, 0), Cursor(0, -1), Cursor(0, 1000)])
def test_impossible_cursors_are_refused(cursor: Cursor) -> None:
    state = {**STATE, "cursors": [{"epoch": cursor.epoch, "row": cursor.row}]}
    with pytest.raises(DataError, match="cursor"):
        stream_over(make_store([50]), 8, 1, 0, state)


def test_a_place_in_other_data_is_refused() -> None:
    for size, context in ((500, 8), (50, 4)):
        with pytest.raises(DataError, match="changed; start again"):
            stream_over(make_store([size]), context, 1, 0, STATE)


def test_streams_of_nothing_are_refused() -> None:
    with pytest.raises(DataError, match="batch size 0"):
        stream_over(make_store([50]), 8, 0, 0)
    with pytest.raises(DataError, match="0 sources"):
        BatchStream([], 1)
