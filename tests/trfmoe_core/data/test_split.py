from hypothesis import given
from hypothesis import strategies as st

from trfmoe_core.data.clean import PAGE_BREAK, clean
from trfmoe_core.data.split import Deal, cut, digest, is_held_out


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


def test_side_depends_on_the_text_alone() -> None:
    pieces = [f"piece {number} says {number * number}" for number in range(400)]
    deals = [Deal(0.1), Deal(0.1)]
    sides: list[dict[bytes, bool]] = []
    for deal, order in zip(deals, (pieces, [*pieces[200:], "noise", *pieces[:200][::-1]]), strict=True):
        for piece in order:
            assert deal.add(piece)
        sides.append(dict(zip(deal.digests, deal.held_out, strict=True)))
    assert sides[0].items() <= sides[1].items()
    assert 15 <= sum(sides[0].values()) <= 70


def test_same_text_is_kept_once_whatever_its_case_and_blanks() -> None:
    deal = Deal(0.5)
    assert [deal.add(piece) for piece in ("A  b", "a b", "a\nb", "ab")] == [True, False, False, True]
    assert deal.duplicates == 2
    assert len(deal.digests) == len(deal.held_out) == 2


def test_fraction_bounds() -> None:
    marks = [digest(str(number)) for number in range(200)]
    assert not any(is_held_out(mark, 1e-12) for mark in marks)
    assert all(is_held_out(mark, 1 - 1e-12) for mark in marks)


def test_last_tenth_of_the_text_is_held_out_where_a_side_is_empty() -> None:
    for fraction in (1e-12, 1 - 1e-12):
        deal = Deal(fraction)
        for number in range(40):
            deal.add(f"piece {number:04}")
        assert deal.ensure_both_sides()
        assert deal.held_out == [False] * 36 + [True] * 4
    deal = Deal(1e-12, held_out=[False, False], digests=[b"a", b"b"], sizes=[1, 1000])
    assert deal.ensure_both_sides()
    assert deal.held_out == [False, True]
    assert not deal.ensure_both_sides()
