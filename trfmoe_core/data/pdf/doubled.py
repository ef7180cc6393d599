"""Takes text once that a page holds twice: under a layer of recognised text, or struck twice to look bold."""

import re
from collections import Counter
from collections.abc import Iterable
from difflib import SequenceMatcher

_MIN_WORDS = 16
_MIN_LINES = 4
_ALIKE = 0.85
_VARIED = 0.4
_MOST_DISTINCT = 0.7
_WORD_TWICE = re.compile(r"(?<!\S)(\S+)[^\S\n]+\1(?!\S)")


def taken_once(text: str) -> str:
    """Returns the text of a page without its second copy, or as it is if there is none.

    The copy may be a second half of the page, or stand right behind every line, word or letter.
    """
    words = text.split()
    if len(words) < _MIN_WORDS:
        return text
    if _are_pairs(words) and len(set(words)) > _MIN_LINES:
        return _WORD_TWICE.sub(r"\1", _each_line_once(text))
    if all(_is_doubled(word) for word in words[:_MIN_WORDS]):
        return re.sub(r"(\S)\1", r"\1", text) if _share(map(_is_doubled, words)) > _ALIKE else text
    if len(set(words)) > _MOST_DISTINCT * len(words):
        return text
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if len(lines) >= _MIN_LINES and _are_pairs(lines) and len(set(lines)) > 2:
        return _each_line_once(text)
    return _first_half(text, lines, words)


def _each_line_once(text: str) -> str:
    lines = [line for line in text.split("\n") if line.strip()]
    kept: list[str] = []
    for line in lines:
        if kept and kept[-1].split() == line.split():
            continue
        kept.append(line)
    return "\n".join(kept)


def _are_pairs(items: list[str]) -> bool:
    return _share(first == second for first, second in zip(items[::2], items[1::2], strict=False)) > _ALIKE


def _is_doubled(word: str) -> bool:
    return len(word) % 2 == 0 and word[::2] == word[1::2]


def _share(answers: Iterable[bool]) -> float:
    found = list(answers)
    return sum(found) / len(found) if found else 0.0


def _first_half(text: str, lines: list[str], words: list[str]) -> str:
    """Returns the first of two copies of the page, if it consists of two. Copies may differ in some words."""
    middle = len(lines) // 2
    if middle >= _MIN_LINES and lines[:middle] == lines[middle : 2 * middle] and len(set(lines[:middle])) > 2:
        return "\n".join(lines[:middle] + lines[2 * middle :])
    half = len(words) // 2
    first, second = words[:half], words[half:]
    common = Counter(first) & Counter(second)
    if sum(common.values()) < _ALIKE * half or len(set(first)) < _VARIED * half:
        return text
    if SequenceMatcher(None, first, second, autojunk=False).ratio() < _ALIKE:
        return text
    seen = 0
    for number, line in enumerate(lines):
        seen += len(line.split())
        if seen >= half:
            return "\n".join(lines[: number + 1])
    return text
