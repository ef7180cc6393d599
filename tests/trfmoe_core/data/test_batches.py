import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trfmoe_core.data.batches import BatchStream, Cursor, evaluation_windows
from trfmoe_core.data.store import TokenStore
from trfmoe_core.errors import DataError

BOS = 60_000


def make_store(sizes: list[int]) -> TokenStore:
    """Pieces whose tokens are all different, so that every window can be told."""
    tokens, offsets = [], [0]
    for size in sizes:
        tokens += [BOS, *range(offsets[-1], offsets[-1] + size)]
        offsets.append(len(tokens))
    return TokenStore(np.array(tokens, np.uint16), np.array(offsets, np.int64), np.array(sizes, np.int64) * 3)


SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=12)


@given(st.integers(1, 200), st.integers(1, 30), st.integers(0, 5), st.integers(0, 3))
def test_an_epoch_predicts_every_token_at_most_once(size: int, context: int, seed: int, epoch: int) -> None:
    store = make_store([max(size, context)])
    stream = BatchStream(store, context, 1, seed, Cursor(epoch, 0))
    rows = np.concatenate([stream.next() for _ in range(stream.windows_per_epoch)])
    assert stream.cursor == Cursor(epoch, stream.windows_per_epoch)
    assert stream.windows_per_epoch == (store.num_tokens - 1) // context
    targets = rows[:, 1:].reshape(-1)
    assert len(set(targets.tolist())) == targets.size > store.num_tokens - 1 - context
    np.testing.assert_array_equal(rows[:, 2:], rows[:, 1:-1] + 1)


@given(SIZES, st.integers(1, 20), st.integers(1, 7), st.integers(0, 9), st.integers(0, 12))
def test_a_stream_continues_exactly_at_its_cursor(
    sizes: list[int], context: int, batch_size: int, seed: int, before: int
) -> None:
    store = make_store(sizes)
    one = BatchStream(store, context, batch_size, seed)
    for _ in range(before):
        one.next()
    other = BatchStream(store, context, batch_size, seed, one.cursor)
    for _ in range(6):
        batch = one.next()
        assert batch.shape == (batch_size, context + 1)
        assert batch.dtype == np.int64
        np.testing.assert_array_equal(batch, other.next())
        assert one.cursor == other.cursor


def test_batch_size_does_not_change_the_order_and_epochs_differ() -> None:
    store = make_store([400])
    single, wide = BatchStream(store, 8, 1, 3), BatchStream(store, 8, 100, 3)
    rows = wide.next()
    np.testing.assert_array_equal(rows, np.concatenate([single.next() for _ in range(100)]))
    epoch = wide.windows_per_epoch
    assert rows[:epoch].tolist() != rows[epoch : 2 * epoch].tolist()
    assert BatchStream(store, 8, 100, 4).next().tolist() != rows.tolist()


def test_short_stores_are_repeated() -> None:
    store = make_store([2])
    row = BatchStream(store, 7, 1, 0).next()[0].tolist()
    assert sorted(row[:3]) == [0, 1, BOS]
    assert row == (row[:3] * 3)[:8]


@pytest.mark.parametrize("cursor", [Cursor(-1, 0), Cursor(0, -1), Cursor(0, 1000)])
def test_impossible_cursors_are_refused(cursor: Cursor) -> None:
    with pytest.raises(DataError, match="cursor"):
        BatchStream(make_store([50]), 8, 1, 0, cursor)


def test_empty_stores_and_shapes_are_refused() -> None:
    empty = TokenStore(np.zeros(0, np.uint16), np.zeros(1, np.int64), np.zeros(0, np.int64))
    with pytest.raises(DataError, match="0 tokens"):
        BatchStream(empty, 8, 1, 0)
    with pytest.raises(DataError, match="0 tokens"):
        evaluation_windows(empty, 8, 100)
    with pytest.raises(DataError, match="batch size 0"):
        BatchStream(make_store([50]), 8, 0, 0)


@given(SIZES, st.integers(1, 30), st.integers(1, 300))
def test_evaluation_predicts_every_token_of_whole_pieces_once(sizes: list[int], context: int, budget: int) -> None:
    store = make_store(sizes)
    windows = evaluation_windows(store, context, budget)
    assert windows.tokens.shape == (windows.mask.shape[0], context + 1)
    pieces = windows.num_bytes and next(n for n in range(1, len(sizes) + 1) if sum(sizes[:n]) * 3 == windows.num_bytes)
    end = int(store.piece_offsets[pieces])
    assert pieces == 1 or end <= budget
    assert pieces == len(sizes) or int(store.piece_offsets[pieces + 1]) > budget
    predicted = windows.tokens[:, 1:][windows.mask]
    expected = store.tokens[:end][store.tokens[:end] != BOS]
    np.testing.assert_array_equal(predicted, expected)
    np.testing.assert_array_equal(windows.tokens[1:, 0], windows.tokens[:-1, -1])
