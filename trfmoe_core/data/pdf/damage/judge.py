"""The plausibility of a page: 1 is sound, 0 is no text. The worst kind of damage decides."""

from collections.abc import Callable
from dataclasses import dataclass

from trfmoe_core.data.pdf.damage.characters import glyph_names, unreadable_characters
from trfmoe_core.data.pdf.damage.ciphertext import letters_exchanged, symbols_in_words
from trfmoe_core.data.pdf.damage.page import RawPage
from trfmoe_core.data.pdf.damage.scripts import scripts_mixed
from trfmoe_core.data.pdf.damage.spacing import letters_apart, word_a_line, words_glued
from trfmoe_core.data.pdf.damage.torn import words_torn


@dataclass(frozen=True)
class Kind:
    """A kind of damage.

    Attributes:
        reason: its name in reports.
        share: returns the share of a page that is damaged, from 0 to 1.
        limit: the share at which a page is worthless.
    """

    reason: str
    share: Callable[[RawPage], float]
    limit: float


KINDS = (
    Kind("no character map", unreadable_characters, 0.15),
    Kind("glyph names", glyph_names, 0.15),
    Kind("ciphertext", letters_exchanged, 0.5),
    Kind("symbols for letters", symbols_in_words, 0.2),
    Kind("mixed scripts", scripts_mixed, 0.15),
    Kind("letters apart", letters_apart, 0.15),
    Kind("words torn", words_torn, 0.12),
    Kind("words glued", words_glued, 0.1),
    Kind("one word a line", word_a_line, 0.85),
)


@dataclass(frozen=True)
class Verdict:
    """How plausible a page is, from 0 to 1, and the kind of damage that counts most; empty for a sound page."""

    plausibility: float
    reason: str

    @property
    def readable(self) -> bool:
        """True if the page is text."""
        return self.plausibility > 0


def judge(text: str) -> Verdict:
    """Returns the verdict on the raw text of a page. Call it before cleaning, which removes the evidence."""
    page = RawPage(text)
    worst, reason = 0.0, ""
    for kind in KINDS:
        damage = kind.share(page) / kind.limit
        if damage > worst:
            worst, reason = damage, kind.reason
    return Verdict(max(0.0, 1.0 - worst), reason)
