"""Text as it should be read: one form for every character, no control characters, no torn words, no blank runs."""

import re
import unicodedata

PAGE_BREAK = "\n\f"

_SURROGATES = re.compile("[\ud800-\udfff]")
_LINE_ENDS = re.compile("\r\n?|[\v\x85\u2028\u2029]")
# A hyphen that only stands at a line's end: U+00AD, or U+0002 as some PDF libraries write it.
_SOFT_HYPHENS = re.compile("\x02\n?|\u00ad\n?")
# Controls without tab, newline and form feed; marks without width; direction marks; private use.
_INVISIBLE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ue000-\uf8ff]")
_ASCII_CONTROLS = bytes(code for code in range(128) if _INVISIBLE.match(chr(code)))
_LINE_END_HYPHEN = re.compile(r"(\w)-[ \t]*\n[ \t]*(?=[a-zà-öø-ÿ])")
# Looking back and not giving back keep this linear on long runs of blanks.
_TRAILING_BLANKS = re.compile(r"(?<![^\S\n\f])[^\S\n\f]++(?=[\n\f]|\Z)")
_INNER_BLANKS = re.compile(r"(?<=[^\s])[^\S\n\f]{2,}|(?<=[^\s])[^\S\n\f ](?=\S)")
_BLANK_LINES = re.compile(r"\n{3,}")
# The same where the only blank is the space; beginning with two of them makes the search several times quicker.
_INNER_SPACES = re.compile(r"  (?<=\S  ) *+")
# What is blank besides the space, once controls are gone and the text is in NFKC.
_ODD_BLANKS = "\t\u1680"


def clean(text: str, *, join_hyphens: bool = False) -> str:
    """Returns `text` in NFKC with plain line ends, without control characters, soft hyphens or runs of blanks.

    A form feed stays, as the page break `PAGE_BREAK`. Indentation stays. Cleaning twice changes nothing more.

    Args:
        text: any string, lone surrogates included (they become U+FFFD).
        join_hyphens: also join words that a line end tore apart, as typeset pages have them.
    """
    if not text.isascii() and not _is_encodable(text):
        text = _SURROGATES.sub("\ufffd", text)
    if any(end in text for end in "\r\v\x85\u2028\u2029"):
        text = _LINE_ENDS.sub("\n", text)
    if "\x02" in text or "\u00ad" in text:
        text = _SOFT_HYPHENS.sub("", text)
    if text.isascii():  # the same as below, ten times quicker
        text = text.encode("ascii").translate(None, _ASCII_CONTROLS).decode("ascii")
    else:
        text = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text))
    if join_hyphens:
        text = _LINE_END_HYPHEN.sub(r"\1", text)
    text = _without_needless_blanks(text)
    if "\f" in text:
        text = PAGE_BREAK.join(page for page in (page.strip("\n") for page in text.split("\f")) if page.strip())
    if "\n\n\n" in text:
        text = _BLANK_LINES.sub("\n\n", text)
    return text.strip("\n\f")


def _is_encodable(text: str) -> bool:
    """Tells whether `text` has no lone surrogates, several times quicker than looking for one."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _without_needless_blanks(text: str) -> str:
    """Returns `text` without blanks at line ends and with one space for every run of them inside a line."""
    if any(blank in text for blank in _ODD_BLANKS):
        return _INNER_BLANKS.sub(" ", _TRAILING_BLANKS.sub("", text))
    if " \n" in text or " \f" in text or text.endswith(" "):
        text = _TRAILING_BLANKS.sub("", text)
    return _INNER_SPACES.sub(" ", text) if "  " in text else text


def normal_form(piece: str) -> str:
    """Returns the form in which two pieces count as the same: NFKC, no case, single blanks."""
    folded = piece.lower() if piece.isascii() else unicodedata.normalize("NFKC", piece).casefold()
    return " ".join(folded.split())
