import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trfmoe_core.data.batches.store import Digests
from trfmoe_core.data.prepare.split import as_numbers, digest, first_of_each, in_both, is_held_out, lowest


def numbers(pieces: list[str]) -> Digests:
    return as_numbers(b"".join(digest(piece) for piece in pieces))


def test_side_depends_on_the_text_alone() -> None:
    pieces = [f"piece {number} says {number * number}" for number in range(400)]
    sides = []
    for order in (pieces, [*pieces[200:], "noise", *pieces[:200][::-1]]):
        sides.append(dict(zip(order, is_held_out(numbers(order), 0.1).tolist(), strict=True)))
    assert sides[0].items() <= sides[1].items()
    assert 15 <= sum(sides[0].values()) <= 70


def test_same_text_counts_once_whatever_its_case_and_blanks() -> None:
    assert first_of_each(numbers(["A  b", "a b", "a\nb", "ab", "A B"])).tolist() == [True, False, False, True, False]
    assert first_of_each(numbers([])).tolist() == []


@given(st.lists(st.integers(0, 9), max_size=40), st.lists(st.integers(0, 9), max_size=40))
def test_firsts_and_common_ones_by_hand(one: list[int], other: list[int]) -> None:
    both = [numbers([str(value) for value in values]) for values in (one, other)]
    assert first_of_each(both[0]).tolist() == [value not in one[:at] for at, value in enumerate(one)]
    assert in_both(*both).tolist() == [value in other for value in one]


def test_fraction_bounds() -> None:
    marks = numbers([str(number) for number in range(200)])
    assert not is_held_out(marks, 1e-12).any()
    assert is_held_out(marks, 1 - 1e-12).all()
    assert digest("x")[:8] == int(numbers(["x"])[0, 0]).to_bytes(8, "big")


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60), st.floats(0, 1))
def test_the_lowest_are_a_fraction_and_at_least_one(values: list[int], fraction: float) -> None:
    marks = numbers([str(value) for value in values])
    among = np.array([value % 2 == values[0] % 2 for value in values])
    chosen = lowest(marks, among, fraction)
    pairs = [tuple(mark) for mark in marks.tolist()]
    order = sorted({mark for mark, inside in zip(pairs, among, strict=True) if inside})
    expected = order[: max(1, round(fraction * len(order)))]
    assert chosen.tolist() == [mark in expected for mark in pairs]
