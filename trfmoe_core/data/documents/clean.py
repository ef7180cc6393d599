"""Cleans text: one form for every character, no control characters, no torn words, no runs of blanks."""

import re
import unicodedata

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
# The blanks besides the space that are left after NFKC and without control characters.
_ODD_BLANKS = "\t\u1680"


def clean(text: str) -> str:
    """Returns `text` in NFKC with plain line ends, without control characters, soft hyphens or runs of blanks.

    Form feeds become `PAGE_BREAK`. Indentation stays. Cleaning clean text changes nothing.

    Args:
        text: any string; lone surrogates become U+FFFD.
    """
    if not text.isascii() and not _is_encodable(text):
        text = _SURROGATES.sub("\ufffd", text)
    if any(end in text for end in "\r\v\x85\u2028\u2029"):
        text = _LINE_ENDS.sub("\n", text)
    if "\x02" in text or "\u00ad" in text:
        text = _SOFT_HYPHENS.sub("", text)
    if text.isascii():  # the same as below, ten times faster
        text = text.encode("ascii").translate(None, _ASCII_CONTROLS).decode("ascii")
    else:
        text = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text))
    text = _without_needless_blanks(text)
    if "\f" in text:
        text = PAGE_BREAK.join(page for page in (page.strip("\n") for page in text.split("\f")) if page.strip())
    if "\n\n\n" in text:
        text = _BLANK_LINES.sub("\n\n", text)
    return text.strip("\n\f")


def _is_encodable(text: str) -> bool:
    """Returns True if `text` has no lone surrogates. Encoding is several times faster than searching for one."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _without_needless_blanks(text: str) -> str:
    """Returns `text` without blanks at line ends and with a single space for every run of blanks inside a line."""
    if any(blank in text for blank in _ODD_BLANKS):
        return _INNER_BLANKS.sub(" ", _TRAILING_BLANKS.sub("", text))
    if " \n" in text or " \f" in text or text.endswith(" "):
        text = _TRAILING_BLANKS.sub("", text)
    return _INNER_SPACES.sub(" ", text) if "  " in text else text


def normal_form(piece: str) -> str:
    """Returns `piece` in NFKC, without case and with single blanks. Pieces with equal normal forms are duplicates."""
    folded = piece.lower() if piece.isascii() else unicodedata.normalize("NFKC", piece).casefold()
    return " ".join(folded.split())
