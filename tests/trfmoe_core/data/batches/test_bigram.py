import math

import pytest

from trfmoe_core.data.batches.bigram import ByteBigram


def test_add_one_counts_by_hand() -> None:
    bigram = ByteBigram()
    assert bigram.bits_per_byte([b"abc"]) == pytest.approx(8.0)
    bigram.fit([b"ab", b"ab", b"b"])
    # Starts: a 2 of 3, b 1 of 3; after a: b 2 of 2; nothing follows b.
    expected = -(math.log2(3 / 259) + math.log2(3 / 258) + math.log2(1 / 256)) / 3
    assert bigram.bits_per_byte([b"aba"]) == pytest.approx(expected)
    assert bigram.bits_per_byte([]) == 0.0
    assert bigram.bits_per_byte([b""]) == 0.0


def test_chunks_do_not_change_the_counts() -> None:
    pieces = [bytes([number % 251, number % 7]) * 3000 for number in range(300)]
    whole, parts = ByteBigram(), ByteBigram()
    whole.fit(pieces)
    for piece in pieces:
        parts.fit([piece])
    assert whole.bits_per_byte(pieces) == parts.bits_per_byte(pieces)
