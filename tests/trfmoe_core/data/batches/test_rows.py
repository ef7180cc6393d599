from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trfmoe_core.data.batches.stores import BOS, make_store
from trfmoe_core.data.batches.rows import RowLayout, make_layout
from trfmoe_core.data.batches.store import TokenStore
from trfmoe_core.errors import DataError

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=20)


def epoch_rows(layout: RowLayout, epoch: int) -> np.ndarray:
    return layout.rows(layout.order(epoch), np.arange(layout.rows_per_epoch))


@given(st.integers(1, 200), st.integers(1, 30), st.integers(0, 5), st.integers(0, 3))
def test_windows_predict_every_token_at_most_once(size: int, context: int, seed: int, epoch: int) -> None:
    store = make_store([max(size, context)])
    layout = make_layout("concatenate", store, context, seed)
    rows = epoch_rows(layout, epoch)
    assert layout.rows_per_epoch == (store.num_tokens - 1) // context
    targets = rows[:, 1:].reshape(-1)
    assert len(set(targets.tolist())) == targets.size > store.num_tokens - 1 - context
    np.testing.assert_array_equal(rows[:, 2:], rows[:, 1:-1] + 1)


@given(SIZES, st.integers(1, 30), st.integers(0, 5), st.integers(0, 3))
def test_whole_pieces_predict_every_token_exactly_once(sizes: list[int], context: int, seed: int, epoch: int) -> None:
    store = make_store(sizes)
    layout = make_layout("best_fit", store, context, seed)
    rows = epoch_rows(layout, epoch)
    assert rows.shape == (layout.rows_per_epoch, context + 1)
    assert (rows[:, 0] == BOS).all()
    targets = rows[:, 1:][rows[:, 1:] != BOS]
    assert sorted(targets.tolist()) == list(range(sum(sizes)))
    assert layout.targets_per_row * layout.rows_per_epoch == pytest.approx(sum(sizes))
    # A token follows the one before it, or the bos of its piece, or of a run of a piece that is too long.
    starts = {int(start) for start in np.cumsum([0, *sizes])}
    for row in rows.tolist():
        for before, token in pairwise(row):
            assert token == BOS or token == before + 1 or before == BOS
    if max(sizes) <= context:
        firsts = {row[at + 1] for row in rows.tolist() for at in range(context) if row[at] == BOS != row[at + 1]}
        assert firsts == starts - {sum(sizes)}


@given(SIZES, st.sampled_from(["concatenate", "best_fit"]), st.integers(1, 30), st.integers(0, 3))
def test_parts_say_where_every_token_of_a_row_comes_from(
    sizes: list[int], packing: str, context: int, epoch: int
) -> None:
    store = make_store(sizes)
    layout = make_layout(packing, store, context, 1)  # type: ignore[arg-type]
    order = layout.order(epoch)
    for number, row in enumerate(epoch_rows(layout, epoch).tolist()):
        told: list[int] = []
        for part in layout.parts(order, number):
            piece = store.piece(part.piece).tolist()
            run = piece[part.start : part.start + part.tokens]
            if packing == "best_fit":
                run = [BOS, *piece[part.start + 1 : part.start + part.tokens]]
            told += run
        assert told + [BOS] * (len(row) - len(told)) == row
        assert packing == "best_fit" or len(told) == len(row)


def test_which_pieces_meet_changes_with_epoch_and_seed() -> None:
    store = make_store([5] * 40)
    first = make_layout("best_fit", store, 11, 1)
    rows = [epoch_rows(layout, epoch).tolist() for layout, epoch in ((first, 0), (first, 1), (first, 0))]
    assert rows[0] == rows[2]
    together = [{frozenset(token // 5 for token in row if token != BOS) for row in one} for one in rows]
    assert together[0] != together[1]
    assert rows[0] != epoch_rows(make_layout("best_fit", store, 11, 2), 0).tolist()


def test_rows_of_many_pieces_are_nearly_full() -> None:
    sizes = np.random.default_rng(0).integers(1, 100, 1000).tolist()
    layout = make_layout("best_fit", make_store(sizes), 63, 0)
    counts = Counter(int((row != BOS).sum()) for row in epoch_rows(layout, 0))
    assert sum(number for filled, number in counts.items() if filled < 50) < 0.06 * layout.rows_per_epoch


def test_short_stores_are_repeated_or_padded() -> None:
    store = make_store([2])
    row = epoch_rows(make_layout("concatenate", store, 7, 0), 0)[0].tolist()
    assert sorted(row[:3]) == [0, 1, BOS]
    assert row == (row[:3] * 3)[:8]
    assert epoch_rows(make_layout("best_fit", store, 7, 0), 0).tolist() == [[BOS, 0, 1, *[BOS] * 5]]


def test_empty_stores_and_impossible_sizes_are_refused() -> None:
    empty = make_store([1])
    empty = TokenStore(
        empty.tokens[:0], empty.piece_offsets[:1], empty.piece_bytes[:0], empty.digests[:0], empty.documents
    )
    with pytest.raises(DataError, match="0 tokens"):
        make_layout("concatenate", empty, 8, 0)
    with pytest.raises(DataError, match="context 0"):
        make_layout("best_fit", make_store([5]), 0, 0)
