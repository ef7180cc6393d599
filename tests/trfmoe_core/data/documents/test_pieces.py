from hypothesis import given
from hypothesis import strategies as st

from trfmoe_core.data.documents.clean import PAGE_BREAK, clean
from trfmoe_core.data.documents.pieces import cut


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
