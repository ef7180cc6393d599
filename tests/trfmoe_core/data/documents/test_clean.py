import re
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trfmoe_core.data.documents import clean as clean_module
from trfmoe_core.data.documents.clean import PAGE_BREAK, Normalization, clean, normal_form, normalize


def test_characters_get_one_form() -> None:
    assert clean("eﬃcient ﬁle\u00a0e\u0301") == "efficient file é"
    assert clean("a\x00b\x07c\u200b\ufeff\ue001d") == "abcd"
    assert clean("x\ud800y") == "x\ufffdy"


@pytest.mark.parametrize(
    "text",
    [
        "1½ tablets, 5×10⁶ cells, 2³² ways, H₂O, ①, Ⅻ, 3 ㎎, ㅋㅋ, １２３, 東京，ＡＢＣ。ｶﾀｶﾅ, x² ≠ x2, Å™",
        "क्\u200dष می\u200cخواهم 👨\u200d👩\u200d👧",
    ],
)
def test_characters_that_carry_meaning_stay(text: str) -> None:
    assert normalize(text) == normalize(text, "nfc") == clean(text) == text


def test_safe_folds_are_those_of_the_documentation() -> None:
    assert normalize("ﬀ ﬁ ﬂ ﬃ ﬄ ﬅ ﬆ") == "ff fi fl ffi ffl st st"
    assert normalize("Ｆｕｌｌ Ｗｉｄｔｈ\nＡ漢") == "Full Width\nＡ漢"
    assert normalize("a\u00a0b\u2009c\u3000d\u202fe\u1680f co\u00adop") == "a b c d e f coop"
    assert normalize("ﬁ\u0301 Å", "nfc") == "ﬁ\u0301 Å"
    assert normalize("2³² 1½ ㅋ ﬁ", "nfkc") == "232 11⁄2 \u110f fi"


def test_lines_blanks_and_pages() -> None:
    assert clean("a\r\nb\rc\u2028d") == "a\nb\nc\nd"
    assert clean("a  \t b   \n\n\n\n\n  indented\n\n") == "a b\n\n  indented"
    assert clean("one\f\f\n two\n\n\f \f") == f"one{PAGE_BREAK} two"
    assert clean(" \n\t\x00 ") == ""


def test_soft_hyphens_go_and_plain_ones_stay() -> None:
    assert clean("exam\u00adple and soft\u00ad\nware, U\x02\nnits") == "example and software, Units"
    torn = "the experi-\nment is well-known; Jean-\nPaul; 3-\n4; a --\nb"
    assert clean(torn) == torn


@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from(" \t\n\f-\u00ad\u0301eﬁ\u00a0Ａ漢"))))
def test_cleaning_twice_changes_nothing(text: str) -> None:
    for normalization in get_args(Normalization):
        once = clean(text, normalization=normalization)
        assert clean(once, normalization=normalization) == once
        once.encode("utf-8")


@given(st.text(alphabet=st.sampled_from("  \n\fa\tb\u1680\u3000")))
def test_the_quick_way_for_spaces_gives_what_the_full_patterns_give(text: str) -> None:
    quick = clean_module._without_needless_blanks(re.sub("[\u1680\u3000]", " ", text))
    trailing = clean_module._TRAILING_BLANKS.sub("", re.sub("[\u1680\u3000]", " ", text))
    assert quick == clean_module._INNER_BLANKS.sub(" ", trailing)


def test_long_runs_cost_linear_time() -> None:
    # Quadratic patterns take hours here, not seconds: the suite's own time limit ends them.
    for run in (" ", "\n", "\f", "-\n", "a-", "\t ", "\u00a0", "Ａ", "Ａ\n"):
        assert clean(run * 300_000 + "x").endswith("x")


def test_normal_form_ignores_case_and_blanks() -> None:
    assert normal_form(" The  ﬁle\nIS") == normal_form("the FILE is")
    assert normal_form("a b") != normal_form("ab")
