"""Cleans text: one form for every character, no control characters, no torn words, no runs of blanks.

docs/data.md lists what is changed. Digits, superscripts, subscripts, fractions and Hangul letters stay as they are
unless the setting `data.normalization` is `nfkc`.
"""

import re
import unicodedata
from typing import Literal

Normalization = Literal["safe", "nfc", "nfkc"]
RULES = 2
"""Increase it whenever the same text is cleaned to another one: texts in caches are then read again."""
PAGE_BREAK = "\n\f"

_SURROGATES = re.compile("[\ud800-\udfff]")
_LINE_ENDS = re.compile("\r\n?|[\v\x85\u2028\u2029]")
# A hyphen that is shown at a line's end only: U+00AD, or U+0002 as some PDF libraries write it.
_SOFT_HYPHENS = re.compile("\x02\n?|\u00ad\n?")
# Control characters except tab, newline and form feed; zero-width marks; direction marks; private use.
_INVISIBLE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ue000-\uf8ff]")
_ASCII_CONTROLS = bytes(code for code in range(128) if _INVISIBLE.match(chr(code)))
# The lookbehind and the possessive `++` keep this linear on long runs of blanks.
_TRAILING_BLANKS = re.compile(r"(?<![^\S\n\f])[^\S\n\f]++(?=[\n\f]|\Z)")
_INNER_BLANKS = re.compile(r"(?<=[^\s])[^\S\n\f]{2,}|(?<=[^\s])[^\S\n\f ](?=\S)")
_BLANK_LINES = re.compile(r"\n{3,}")
# The same for text whose only blank is the space. Two literal spaces at the start make the search much faster.
_INNER_SPACES = re.compile(r"  (?<=\S  ) *+")
# Blanks of other widths than the space, which no reader can tell from it.
_EXOTIC_BLANKS = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_LIGATURES = {
    "\ufb00": "ff",
    "\ufb01": "fi",
    "\ufb02": "fl",
    "\ufb03": "ffi",
    "\ufb04": "ffl",
    "\ufb05": "st",
    "\ufb06": "st",
}
_LIGATURE = re.compile("[\ufb00-\ufb06]")
_WIDE_LETTERS = re.compile("[\uff21-\uff3a\uff41-\uff5a]")
# Without the anchor the search is quadratic in the length of a line.
_LINES_WITH_WIDE_LETTERS = re.compile(f"^.*{_WIDE_LETTERS.pattern}.*", re.MULTILINE)
# Most text has none of these, and one search is quicker than four.
_SPECIAL = re.compile("|".join(one.pattern for one in (_INVISIBLE, _EXOTIC_BLANKS, _LIGATURE, _WIDE_LETTERS)))
_TO_NARROW = 0xFEE0
_EAST_ASIAN = re.compile(
    "[\u1100-\u11ff\u2e80-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff66-\uffdc\U00020000-\U0003ffff]"
)


def clean(text: str, *, normalization: Normalization = "safe") -> str:
    """Returns `text` with characters in one form, plain line ends, and without runs of blanks.

    Form feeds become `PAGE_BREAK`. Indentation stays. Cleaning clean text changes nothing.

    Args:
        text: any string; lone surrogates become U+FFFD.
        normalization: which characters are replaced by others (`normalize`).
    """
    text = normalize(text, normalization)
    text = _without_needless_blanks(text)
    if "\f" in text:
        text = PAGE_BREAK.join(page for page in (page.strip("\n") for page in text.split("\f")) if page.strip())
    if "\n\n\n" in text:
        text = _BLANK_LINES.sub("\n\n", text)
    return text.strip("\n\f")


def normalize(text: str, normalization: Normalization = "safe") -> str:
    """Returns `text` with characters in one form and plain line ends, without control characters and soft hyphens.

    Prompts go through this function too, so that a model sees the characters that it was trained on.

    Args:
        text: any string; lone surrogates become U+FFFD.
        normalization: `nfc`: composed characters (Unicode's NFC) and plain blanks. `safe`: also letters for ligatures
            such as U+FB01, and plain letters for full-width ones on lines without East Asian characters. `nfkc`:
            Unicode's NFKC, which also turns 2\u00b3\u00b2 into 232, 1\u00bd into 11\u20442, and Hangul letters into
            parts of syllables.
    """
    if not text.isascii() and not _is_encodable(text):
        text = _SURROGATES.sub("\ufffd", text)
    if any(end in text for end in "\r\v\x85\u2028\u2029"):
        text = _LINE_ENDS.sub("\n", text)
    if "\x02" in text or "\u00ad" in text:
        text = _SOFT_HYPHENS.sub("", text)
    if text.isascii():  # the same as below, ten times faster
        return text.encode("ascii").translate(None, _ASCII_CONTROLS).decode("ascii")
    special = _SPECIAL.search(text) is not None
    if special:
        text = _EXOTIC_BLANKS.sub(" ", _INVISIBLE.sub("", text))
    if normalization == "nfkc":
        return unicodedata.normalize("NFKC", text)
    text = unicodedata.normalize("NFC", text)
    return _folded(text) if special and normalization == "safe" else text


def _folded(text: str) -> str:
    """Returns `text`, which is in NFC, with letters for ligatures and for full-width letters."""
    folded = _LIGATURE.sub(lambda found: _LIGATURES[found.group()], text)
    if _WIDE_LETTERS.search(folded):
        folded = _LINES_WITH_WIDE_LETTERS.sub(_narrow, folded)
    return folded if folded == text else unicodedata.normalize("NFC", folded)


def _narrow(line: re.Match[str]) -> str:
    """Returns a line with plain letters for full-width ones, unless it holds East Asian characters."""
    if _EAST_ASIAN.search(line.group()):
        return line.group()
    return _WIDE_LETTERS.sub(lambda letter: chr(ord(letter.group()) - _TO_NARROW), line.group())


def _is_encodable(text: str) -> bool:
    """Returns True if `text` has no lone surrogates. Encoding is several times faster than searching for one."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _without_needless_blanks(text: str) -> str:
    """Returns `text` without blanks at line ends and with a single space for every run of blanks inside a line."""
    if "\t" in text:
        return _INNER_BLANKS.sub(" ", _TRAILING_BLANKS.sub("", text))
    if " \n" in text or " \f" in text or text.endswith(" "):
        text = _TRAILING_BLANKS.sub("", text)
    return _INNER_SPACES.sub(" ", text) if "  " in text else text


def normal_form(piece: str) -> str:
    """Returns `piece` in NFKC, without case and with single blanks. Pieces with equal normal forms are duplicates."""
    folded = piece.lower() if piece.isascii() else unicodedata.normalize("NFKC", piece).casefold()
    return " ".join(folded.split())
