import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trfmoe_core.data.batches.stores import make_store
from trfmoe_core.data.batches.held_out import evaluation_pieces, evaluation_windows
from trfmoe_core.errors import DataError

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=12)


@given(SIZES, SIZES, st.integers(1, 30), st.integers(1, 600))
def test_every_token_of_the_chosen_pieces_is_predicted_once(
    one: list[int], other: list[int], context: int, budget: int
) -> None:
    stores = [make_store(one), make_store(other, first=sum(one))]
    chosen = evaluation_pieces(stores, [1.0, 2.0], budget)
    assert len(set(chosen)) == len(chosen)
    sizes = [stores[store].piece(piece).size for store, piece in chosen]
    assert sum(sizes) <= budget or len(chosen) == 1
    windows = evaluation_windows(stores, [1.0, 2.0], context, budget)
    assert windows.tokens.shape == (windows.mask.shape[0], context + 1)
    predicted = windows.tokens[:, 1:][windows.mask]
    expected = np.concatenate([stores[store].piece(piece)[1:] for store, piece in chosen])
    np.testing.assert_array_equal(predicted, expected)
    assert windows.num_bytes == 3 * len(expected)
    np.testing.assert_array_equal(windows.tokens[1:, 0], windows.tokens[:-1, -1])


def test_pieces_come_from_all_over_and_always_the_same() -> None:
    store = make_store([9] * 1000)
    chosen = [piece for _, piece in evaluation_pieces([store], [1.0], 1000)]
    assert len(chosen) == 100
    tenths = np.bincount(np.array(chosen) // 100, minlength=10)
    assert tenths.min() > 2
    assert evaluation_pieces([store], [1.0], 500) == [(0, piece) for piece in chosen[:50]]


def test_every_source_has_its_share_as_far_as_it_lasts() -> None:
    stores = [make_store([9] * 500), make_store([19] * 500, first=9999), make_store([9] * 3, first=1)]
    tokens = [0, 0, 0]
    for store, _ in evaluation_pieces(stores, [3.0, 1.0, 1.0], 2000):
        tokens[store] += 20 if store == 1 else 10
    assert tokens[2] == 30
    assert tokens[0] == pytest.approx(3 * tokens[1], abs=60)
    assert sum(tokens) > 1980


def test_a_source_without_held_out_text_takes_no_part() -> None:
    store = make_store([9] * 5)
    assert {number for number, _ in evaluation_pieces([store.part(0, 0), store], [1.0, 1.0], 100)} == {1}
    with pytest.raises(DataError, match="0 tokens"):
        evaluation_windows([store.part(0, 0)], [1.0], 8, 100)
    with pytest.raises(DataError, match="context 0"):
        evaluation_windows([store], [1.0], 0, 100)
