"""Words that are torn by blanks at places that no hyphen marks: "imp ortance"."""

from trfmoe_core.data.pdf.damage.page import RawPage
from trfmoe_core.data.pdf.english import common_words

_MIN_WORDS = 40
_LONGEST_MEAN = 4.8
"""Pages whose words are longer on average are not torn."""


def words_torn(page: RawPage) -> float:
    """Returns the share of words that are parts of a common English word and no words themselves.

    Other languages are not judged: nothing of theirs is in the list of words.
    """
    if len(page.words) < _MIN_WORDS or page.size > _LONGEST_MEAN * len(page.words):
        return 0.0
    known = common_words()
    num_words, parts, before = 0, 0, ""
    for word in page.words:
        if not (word.isalpha() and word.islower()):
            before = ""
            continue
        num_words += 1
        if before and before + word in known and (before not in known or word not in known):
            parts += 2
            before = ""
        else:
            before = word
    return parts / num_words if num_words >= _MIN_WORDS else 0.0
