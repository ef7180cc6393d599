import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trfmoe_core.data.batches.store import Digests
from trfmoe_core.data.documents.clean import PAGE_BREAK, clean
from trfmoe_core.data.prepare.split import as_numbers, cut, digest, first_of_each, in_both, is_held_out, last_tenth


@given(st.text(alphabet=st.sampled_from("aé你🙂 \n\f"), max_size=600), st.integers(4, 80))
def test_pieces_fit_and_hold_every_letter(text: str, piece_bytes: int) -> None:
    pieces = cut(clean(text), piece_bytes)
    assert all(0 < len(piece.encode()) <= piece_bytes for piece in pieces)
    assert all(piece.strip() and "\f" not in piece for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())


def test_the_best_border_in_the_second_half_wins() -> None:
    page = f"{'a' * 40}{PAGE_BREAK}{'b ' * 8}\n\ncc\nd{'e' * 50}"
    assert cut(page, 64)[0] == "a" * 40
    assert cut(page.replace("\f", "x"), 64)[0].endswith("b")
    assert cut("word " * 30, 64)[0] == ("word " * 13).strip()
    assert [len(piece) for piece in cut("z" * 150, 64)] == [64, 64, 22]
    assert cut("", 64) == []


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


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=60))
def test_the_last_tenth_is_as_little_as_makes_a_tenth(sizes: list[int]) -> None:
    held_out = last_tenth(np.array(sizes, np.int64)).tolist()
    first = held_out.index(True)
    assert held_out == [number >= first for number in range(len(sizes))]
    assert first > 0
    assert first == 1 or 10 * sum(sizes[first:]) >= sum(sizes)
    assert first == len(sizes) - 1 or 10 * sum(sizes[first + 1 :]) < sum(sizes)


def test_the_last_tenth_of_equal_pieces() -> None:
    assert last_tenth(np.full(40, 10)).sum() == 4
    assert last_tenth(np.array([1, 1000])).tolist() == [False, True]
