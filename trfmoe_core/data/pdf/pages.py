"""Cleans the raw text of pages: joins torn words, drops stray glyphs, running heads and page numbers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from trfmoe_core.data.documents.clean import clean
from trfmoe_core.data.pdf.damage.characters import GLYPH_NAMES
from trfmoe_core.data.pdf.headers import without_headers
from trfmoe_core.data.pdf.hyphens import join_hyphens

# A readable page may hold some unreadable glyphs, such as a formula, and lines in a font without a character map.
_UNREADABLE = re.compile("[\x01-\x08\x0b-\x1f\x7f-\x9f\ufffd\ue000-\uf8ff]")
_UNREADABLE_RUN = re.compile("(?:[\ufffd\ue000-\uf8ff]\\s?){3,}")
_CONTROLS = re.compile("[\x01-\x08\x0b-\x1f\x7f-\x9f]+")
_MOST_OF_A_LINE = 0.15
_MIN_OF_A_LINE = 3
# Codes of ligatures in TeX's fonts, which engines pass on where a font has no character map.
_LIGATURES = dict(zip("\x0b\x0c\r\x0e\x0f\x1b\x1c\x1d\x1e\x1f", ("ff", "fi", "fl", "ffi", "ffl") * 2, strict=True))
_LIGATURE = re.compile("(?<=[A-Za-z])[\x0b-\x0f\x1b-\x1f](?![\n])|[\x0b-\x0f\x1b-\x1f](?=[a-z])")


@dataclass
class TidyPages:
    """Clean pages, and what was changed on the way.

    Attributes:
        texts: the pages.
        lines_lost: lines that were removed because they are unreadable.
        headers: running heads and page numbers that were removed.
        hyphens_joined: hyphens at line ends that were removed.
        hyphens_kept: hyphens at line ends that belong to a word.
    """

    texts: list[str]
    lines_lost: int
    headers: int
    hyphens_joined: int
    hyphens_kept: int


def tidy(pages: Sequence[str], *, drop_headers: bool) -> TidyPages:
    """Returns the clean pages. With `drop_headers`, lines at top and bottom that repeat on nearby pages are removed."""
    joined, hyphens = join_hyphens([_spelt_out(page.replace("\0", "")) for page in pages])
    texts = []
    lines_lost = 0
    for page in joined:
        if _UNREADABLE.search(page):
            lines = page.split("\n")
            readable = ["" if _is_unreadable(line) else line for line in lines]
            lines_lost += sum(before != after for before, after in zip(lines, readable, strict=True))
            # A control character is most often the blank of a font without a character map.
            page = _CONTROLS.sub(" ", _UNREADABLE_RUN.sub(" ", "\n".join(readable)))
        if "/" in page or "(cid:" in page:
            page = GLYPH_NAMES.sub(" ", page)
        texts.append(clean(page).replace("\f", "\n").strip("\n"))
    headers = 0
    if drop_headers:
        texts, headers = without_headers(texts)
    return TidyPages(texts, lines_lost, headers, hyphens.joined, hyphens.kept)


def _is_unreadable(line: str) -> bool:
    found = len(_UNREADABLE.findall(line))
    return found >= _MIN_OF_A_LINE and found >= _MOST_OF_A_LINE * len("".join(line.split()))


def _spelt_out(page: str) -> str:
    """Returns the page with TeX's ligatures as letters."""
    return _LIGATURE.sub(lambda match: _LIGATURES[match.group()], page)
