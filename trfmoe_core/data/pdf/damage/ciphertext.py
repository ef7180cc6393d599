"""Text in which every letter stands for another one, because a font numbers its glyphs in an order of its own."""

import math
import re
from collections.abc import Mapping

from trfmoe_core.data.pdf.damage.page import RawPage
from trfmoe_core.data.pdf.english import common_words

_MIN_LETTERS = 150
_MIN_DISTINCT = 10
_MOST_BACKSLASHES = 0.02
_VOWELS, _FREQUENT = "aeiou", "etaoinsrhl"
# Shares of the letters of prose in Latin script that are vowels, and that are among the ten most frequent ones. In all
# languages that were tried the two quotients add up to about 2.
_TYPICAL_VOWELS, _TYPICAL_FREQUENT = 0.38, 0.72
_LEAST_SUM = 1.6
# Percents of a to z, as a compromise between some European languages.
_PERCENTS = {
    "a": 9.5, "b": 1.5, "c": 3.0, "d": 4.0, "e": 12.5, "f": 1.3, "g": 2.0, "h": 3.0, "i": 8.5, "j": 0.8, "k": 2.0,
    "l": 4.3, "m": 3.0, "n": 7.2, "o": 6.8, "p": 2.2, "q": 0.4, "r": 5.8, "s": 5.8, "t": 6.5, "u": 4.2, "v": 1.5,
    "w": 1.2, "x": 0.3, "y": 1.5, "z": 1.2,
}  # fmt: skip
_MOST_SURPRISE = 0.55
"""Bits a letter (Kullback-Leibler divergence from the percents above); prose has 0.1 to 0.5, exchanged letters 1.1."""
_PUNCTUATION = ".,;:!?()'\"“”’"
_MIN_KNOWN = 0.05
_MIN_KNOWN_LETTERS = 3
_MOST_ACCENTED = 0.4
# Circled letters, boxes and pictures, but not the visible blank of programs.
_SYMBOL = "\u2460-\u27bf"
# A word with a picture or a circled number in its middle.
_SYMBOL_WORD = re.compile(rf"(?<!\S)\S*[A-Za-z][{_SYMBOL}]+[A-Za-z]\S*|(?<!\S)[A-Za-z]*[{_SYMBOL}]{{4,}}\S*")
_HAS_SYMBOL = re.compile(f"[{_SYMBOL}]")


def letters_exchanged(page: RawPage) -> float:
    """Returns 1 for a page in Latin letters whose frequencies fit no language, otherwise 0.

    Also for Cyrillic or Greek that is shown in accented Latin letters.
    """
    counts: dict[str, int] = {}
    accented = 0
    for one, count in page.characters.items():
        if "A" <= one <= "Z" or "a" <= one <= "z":
            folded = one.lower()
            counts[folded] = counts.get(folded, 0) + count
        elif "\u00c0" <= one <= "\u00ff":
            accented += count
    latin = sum(counts.values())
    if latin + accented < max(_MIN_LETTERS, 0.6 * page.size):
        return 0.0
    if accented > _MOST_ACCENTED * (latin + accented):
        return 1.0
    if len(counts) < _MIN_DISTINCT or page.text.count("\\") > _MOST_BACKSLASHES * page.size:
        return 0.0
    vowels = sum(counts.get(one, 0) for one in _VOWELS) / latin
    frequent = sum(counts.get(one, 0) for one in _FREQUENT) / latin
    if vowels / _TYPICAL_VOWELS + frequent / _TYPICAL_FREQUENT > _LEAST_SUM or _surprise(counts) < _MOST_SURPRISE:
        return 0.0
    if 2 * sum(word.strip(_PUNCTUATION).isalpha() for word in page.words) < len(page.words):
        return 0.0
    known = sum(len(word) >= _MIN_KNOWN_LETTERS and word.casefold() in common_words() for word in page.words)
    return float(known < _MIN_KNOWN * len(page.words))


def _surprise(counts: Mapping[str, int]) -> float:
    total, all_percents = sum(counts.values()), sum(_PERCENTS.values())
    shares = ((count / total, _PERCENTS[letter] / all_percents) for letter, count in counts.items())
    return sum(share * math.log2(share / typical) for share, typical in shares)


def symbols_in_words(page: RawPage) -> float:
    """Returns the share of characters in words that have pictures for some of their letters."""
    if page.text.isascii() or not _HAS_SYMBOL.search(page.text):
        return 0.0
    return page.share(sum(len(match.group()) for match in _SYMBOL_WORD.finditer(page.text)))
