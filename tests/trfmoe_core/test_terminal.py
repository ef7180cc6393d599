"""What comes from elsewhere is shown as it is, but cannot steer a terminal or pass for other text."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trfmoe_core.terminal import visible


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "zwei Zeilen\n\tund ein Tab",
        "日本語　ＡＢ",
        "naïve façade\u00a0!",
        "می‌خواهم",
        "👩\u200d🔬",
        "हिन्दी",
        "Ω≈ç√",
    ],
)
def test_writing_of_all_kinds_stays(text: str) -> None:
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b2J", "\\x9b2J"),
        ("a\rb", "a\\rb"),
        ("x\u202etxt.exe", "x\\u202etxt.exe"),
        ("\u2066a\u2069", "\\u2066a\\u2069"),
        ("\u2028", "\\u2028"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        ("\ue000\ufeff\u200b", "\\ue000\\ufeff\\u200b"),
        ("\x7f\x00", "\\x7f\\x00"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_a_line_stays_one_line() -> None:
    assert visible("ada\nround 9: all well\t!", layout="") == "ada\\nround 9: all well\\t!"


@given(st.text(st.characters(max_codepoint=0x10FFFF)))
def test_nothing_but_line_feeds_and_tabs_is_left_of_controls(text: str) -> None:
    left = {letter for letter in visible(text) if unicodedata.category(letter) in ("Cc", "Cs", "Co", "Zl", "Zp")}
    assert left <= {"\n", "\t"}
    assert visible(visible(text)) == visible(text)
