import io

import pytest

from trfmoe_core.data.documents import paged
from trfmoe_core.data.documents.paged import join_texts, read_pages


@pytest.mark.parametrize("block", [1, 2, 3, 7, 1 << 20])
def test_pages_keep_their_numbers_and_their_text(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paged, "_BLOCK_CHARACTERS", block)
    texts = [("", ["", "two\nlines", "", "four"]), ("a\x1cb \nc.pdf", ["one", ""]), ("b.pdf", ["", "", "three"])]
    assert list(read_pages(io.StringIO(join_texts(texts)))) == [
        ("", 2, "two\nlines"),
        ("", 4, "four"),
        ("a b c.pdf", 1, "one"),
        ("b.pdf", 3, "three"),
    ]
    assert list(read_pages(io.StringIO(join_texts([("", []), ("c.pdf", ["x"])])))) == [("c.pdf", 1, "x")]
    assert list(read_pages(io.StringIO(""))) == []
