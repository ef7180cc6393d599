"""Glyphs that the engine could not turn into characters, because the font has no (complete) character map."""

import re

from trfmoe_core.data.pdf.damage.page import RawPage, is_unreadable

# How engines write a glyph whose character they do not know: /G43, /uni0416, /one.os, (cid:12). Single names such as
# /lib64 may be honest, several in a row are not.
_NAME = r"/(?:[A-Za-z]{1,5}\d{1,6}|uni[0-9A-F]{4}|[A-Za-z]{1,16}\.[a-z]{1,8})"
GLYPH_NAMES = re.compile(rf"(?:{_NAME}\s?){{3,}}|(?<!\w)(?:/\w){{3,}}(?![\w/])|(?:\(cid:\d{{1,6}}\)\s?)+")


# Adobe's small capitals and old-style digits stand in the private use area, 0xF700 above their plain forms.
_ADOBE = {code + 0xF700: code for code in (*range(0x21, 0x7F), *range(0xA1, 0x100))}
_PRIVATE = re.compile("[\uf721-\uf7ff]")
_SHIFTED = 0.05
_LONG_WORD = 10


def plain_letters(text: str) -> str:
    """Returns the text with Adobe's small capitals and old-style digits as plain letters and digits."""
    return text.translate(_ADOBE) if _PRIVATE.search(text) else text


def unreadable_characters(page: RawPage) -> float:
    """Returns the share of characters that stand for nothing: control, private use, unassigned and U+FFFD.

    A shifted font may spoil only the blanks visibly, which become a control character. Then all of the page is spoilt.
    """
    counts = [count for one, count in page.characters.items() if is_unreadable(one)]
    share = page.share(sum(counts))
    blanks = page.text.count(" ")
    shifted = share > _SHIFTED and max(counts) > 2 * blanks and len(page.words) * _LONG_WORD < page.size
    return 1.0 if shifted else share


def glyph_names(page: RawPage) -> float:
    """Returns the share of characters that are names of glyphs."""
    if "/" not in page.characters and "(cid:" not in page.text:
        return 0.0
    found = sum(len("".join(match.group().split())) for match in GLYPH_NAMES.finditer(page.text))
    return page.share(found)
