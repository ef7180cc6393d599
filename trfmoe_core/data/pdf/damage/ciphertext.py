"""Text in which every letter stands for another one, because a font numbers its glyphs in an order of its own."""

import re

from trfmoe_core.data.pdf.damage.page import RawPage

_MIN_LETTERS = 150
_MIN_DISTINCT = 10
_MOST_BACKSLASHES = 0.02
_VOWELS, _FREQUENT = "aeiou", "etaoinsrhl"
# Shares of the letters of prose in Latin script that are vowels, and that are among the ten most frequent ones. In all
# languages that were tried the two quotients add up to about 2.
_TYPICAL_VOWELS, _TYPICAL_FREQUENT = 0.38, 0.72
_LEAST_SUM = 1.25
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
    return float(vowels / _TYPICAL_VOWELS + frequent / _TYPICAL_FREQUENT < _LEAST_SUM)


def symbols_in_words(page: RawPage) -> float:
    """Returns the share of characters in words that have pictures for some of their letters."""
    if page.text.isascii() or not _HAS_SYMBOL.search(page.text):
        return 0.0
    return page.share(sum(len(match.group()) for match in _SYMBOL_WORD.finditer(page.text)))
