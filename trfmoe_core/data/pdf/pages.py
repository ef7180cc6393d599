"""Cleans the raw text of pages: joins torn words, drops stray glyphs, running heads and page numbers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from trfmoe_core.data.documents.clean import clean
from trfmoe_core.data.pdf.damage.characters import GLYPH_NAMES
from trfmoe_core.data.pdf.headers import without_headers
from trfmoe_core.data.pdf.hyphens import join_hyphens

# A readable page may hold some unreadable glyphs, such as a formula.
_UNREADABLE_RUN = re.compile("(?:[\ufffd\ue000-\uf8ff]\\s?){3,}")


@dataclass
class TidyPages:
    """Clean pages, and what was changed on the way.

    Attributes:
        texts: the pages.
        headers: running heads and page numbers that were removed.
        hyphens_joined: hyphens at line ends that were removed.
        hyphens_kept: hyphens at line ends that belong to a word.
    """

    texts: list[str]
    headers: int
    hyphens_joined: int
    hyphens_kept: int


def tidy(pages: Sequence[str], *, drop_headers: bool) -> TidyPages:
    """Returns the clean pages. With `drop_headers`, lines at top and bottom that repeat on nearby pages are removed."""
    joined, hyphens = join_hyphens([page.replace("\0", "") for page in pages])
    texts = []
    for page in joined:
        page = _UNREADABLE_RUN.sub(" ", page)
        if "/" in page or "(cid:" in page:
            page = GLYPH_NAMES.sub(" ", page)
        texts.append(clean(page).replace("\f", "\n").strip("\n"))
    headers = 0
    if drop_headers:
        texts, headers = without_headers(texts)
    return TidyPages(texts, headers, hyphens.joined, hyphens.kept)
