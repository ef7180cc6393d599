"""Blanks in wrong places: words that are torn, glued together, or each on a line of its own."""

import re
from collections import Counter
from itertools import pairwise

from trfmoe_core.data.pdf.damage.page import RawPage, has_spaced_words

GLUED_LETTERS = 25
_MIN_LINES = 20
_MIN_WORDS = 80
_RUN = 5
_MIN_DISTINCT = 8
_SORTED = 0.7
_MIN_GLUED = 3
_MOSTLY = 0.5
# Names in programs and addresses are no words.
_LETTER_RUN = re.compile(r"(?<![\\@_{<./:#$=&%-])(?<![^\W\d_])[^\W\d_]+")
# Names of programs are glued on purpose: aWordOfMany. Each hump counts as a word.
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")
_SHORTEST_MEAN, _LONG_MEAN = 2.9, 4.0


def words_glued(page: RawPage) -> float:
    """Returns the share of letters that are in words of 25 letters and more."""
    long_runs = (
        part
        for word in page.words
        if len(word) >= GLUED_LETTERS
        for run in _LETTER_RUN.findall(word)
        if len(run) >= GLUED_LETTERS and has_spaced_words(run) and not run.isupper()
        for part in _HUMP.split(run)
    )
    found = [part for part in long_runs if len(part) >= GLUED_LETTERS and not _is_sorted(part)]
    share = sum(map(len, found)) / page.num_letters if found else 0.0
    # One or two long words may be names of substances.
    return share if len(set(found)) >= _MIN_GLUED or share > _MOSTLY else 0.0


def letters_apart(page: RawPage) -> float:
    """Returns the share of letters that stand alone, many in a row, or 1 if hardly a word is longer than two."""
    words = page.words
    if sum(len(word) == 1 for word in words) > len(words) // 10:
        runs: list[str] = []
        run = ""
        for word in [*words, ""]:
            if len(word) == 1 and word.isalpha() and has_spaced_words(word):
                run += word
                continue
            if len(run) >= _RUN:
                runs.append(run)
            run = ""
        apart = "".join(runs)
        if len(set(apart)) >= _MIN_DISTINCT and not _is_sorted(apart):
            share = len(apart) / page.num_letters
            capitals = sum(map(str.isupper, apart))
            # Capitals alone are labels of a drawing.
            return share if capitals < len(apart) / 2 or share > _MOSTLY else 0.0
    if page.size > _LONG_MEAN * len(words):
        return 0.0
    pieces = [word for word in words if len(word) > 1 and word.islower() and word.isalpha() and word.isascii()]
    if len(pieces) >= _MIN_WORDS and sum(map(len, pieces)) < _SHORTEST_MEAN * len(pieces):
        return 1.0
    return 0.0


def word_a_line(page: RawPage) -> float:
    """Returns the share of lines that hold one word of running text. Lists and columns of a table do not count.

    Running text repeats its short words, and a list does not.
    """
    lines, words = page.lines, page.words
    if len(lines) < _MIN_LINES or len(words) > 1.5 * len(lines):
        return 0.0
    alone = [line.strip() for line in lines if len(line.split()) == 1]
    small = Counter(word for word in alone if len(word) <= 4 and word.islower() and word.isalpha())
    repeated = sum(count for count in small.values() if count > 1)
    if repeated < 0.15 * len(alone) or not has_spaced_words(next(iter(small), "")):
        return 0.0
    return len(alone) / len(lines)


def _is_sorted(letters: str) -> bool:
    """Returns True for an alphabet, as specimens of fonts show it."""
    folded = letters.casefold()
    rising = sum(first <= second for first, second in pairwise(folded))
    return rising >= _SORTED * (len(folded) - 1)
