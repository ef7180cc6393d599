"""Joins words that are torn by a line's end, and keeps hyphens that belong to a word.

Whether a hyphen belongs to the word is decided by the document's own words: `treat-/ment` is joined if `treatment`
occurs elsewhere, and `non-/linear` is kept if `non-linear` does. Only where the document is silent do short lists of
common parts of compounds decide.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from trfmoe_core.data.pdf.english import common_words

_WORD = r"[^\W_]+(?:['’][^\W_]+)*"
# The word before a hyphen at a line's end, with its earlier parts, and the word after it, with its later parts.
_TAIL = re.compile(rf"((?:{_WORD}[-\u2010\u2011])*)({_WORD})[-\u2010\u00ad]$")
_HEAD = re.compile(rf"{_WORD}(?:[-\u2010\u2011]{_WORD})*")
_HYPHENS = "-\u2010\u00ad"
_LONGEST = 80
_COMPOUND_WEIGHT = 10
"""A hyphen too many does less harm than one too few, where a document has both spellings."""
_PARTS = re.compile("[-\u2010\u2011]")
_SOFT_HYPHEN = re.compile("\u00ad(?=\\S)")
# After a suspended hyphen stands one of these: "pre- and postoperative", "Haus- und Hofarzt".
_CONJUNCTIONS = frozenset((
    "and", "or", "to", "nor", "versus", "und", "oder", "bzw", "sowie", "bis", "et", "ou", "y", "o", "e", "och",
    "eller", "og", "en", "of", "i", "a", "oraz", "lub", "и", "или", "та", "або",
))  # fmt: skip
_FIRST_PARTS = frozenset((
    "non", "self", "well", "high", "low", "long", "short", "cross", "half", "quasi", "semi", "multi", "anti",
    "ultra", "pseudo", "post", "inter", "intra", "bio", "ex", "nicht",
))  # fmt: skip
_LAST_PARTS = frozenset((
    "based", "like", "free", "known", "level", "term", "scale", "time", "dimensional", "linear", "related",
    "specific", "dependent", "independent", "oriented", "driven", "wise", "year", "month", "week", "day", "fold",
    "order", "sized", "shaped", "type", "called", "defined", "aware", "art", "même", "ci", "là", "il", "elle", "on",
))  # fmt: skip
# Ends of words: what follows a hyphen and begins like this is no word of its own.
_ENDINGS = re.compile(
    r"(?:s|es|er|ers|est|ed|ing|ings|ish|ness|ly|al|ple|ples|tude|nar|nars|ment|ments|tion|tions|sion|cal|cally|ble)$"
)
_VOWELS = frozenset("aeiou")


@dataclass
class HyphenCounts:
    """How many hyphens at line ends were removed, and how many were kept."""

    joined: int = 0
    kept: int = 0


@dataclass(frozen=True)
class _Torn:
    """A word with a hyphen at a line's end: its parts before the last one, the last one, and what follows."""

    earlier: str
    before: str
    after: str

    @property
    def next_part(self) -> str:
        """The first part of what follows."""
        return _PARTS.split(self.after)[0]


class _Words:
    """How often words and compounds occur in a document, other than torn by a line's end. Case does not matter."""

    def __init__(self, texts: Iterable[str], wanted: set[str]) -> None:
        """Counts the words of `wanted`, and first and last parts of all compounds."""
        self.count: Counter[str] = Counter()
        self.first: Counter[str] = Counter()
        self.last: Counter[str] = Counter()
        for text in texts:
            for word in _HEAD.findall(text.casefold()):
                parts = _PARTS.split(word)
                if len(parts) > 1:
                    self.first.update(parts[:-1])
                    self.last.update(parts[1:])
                    word = "-".join(parts)
                if word in wanted:
                    self.count[word] += 1

    def knows(self, word: str) -> bool:
        """Returns True for a word of the document, or a common one of English."""
        return self.count[word] > 0 or word in common_words()


def join_hyphens(pages: Sequence[str]) -> tuple[list[str], HyphenCounts]:
    """Returns the pages with torn words joined, and the counts.

    A hyphen that belongs to a word stays, and the parts of the word stand on one line then. After a suspended hyphen
    stays a blank.
    """
    # Every hyphen of a page is visible, so a soft one within a line is a plain one.
    pages = [_SOFT_HYPHEN.sub("-", page) if "\u00ad" in page else page for page in pages]
    torn = [_torn_words(page) for page in pages]
    counts = HyphenCounts()
    if not any(torn):
        return pages, counts
    wanted: set[str] = set()
    for word in (word for found in torn for word in found.values()):
        before, after = word.before.casefold(), word.next_part.casefold()
        wanted |= {before, after, before + after, f"{before}-{after}"}
    words = _Words((_without(page, found) for page, found in zip(pages, torn, strict=True)), wanted)
    return [_joined(page, found, words, counts) for page, found in zip(pages, torn, strict=True)], counts


def _torn_words(page: str) -> dict[int, _Torn]:
    """Returns the words that are torn at line ends, by the index of their first line."""
    found = {}
    lines = page.split("\n") if "-\n" in page or "- " in page or not page.isascii() else []
    for number, (line, following) in enumerate(pairwise(lines)):
        line = line.rstrip()
        if line and line[-1] in _HYPHENS:
            tail, head = _TAIL.search(line[-_LONGEST:]), _HEAD.match(following.lstrip()[:_LONGEST])
            if tail and head:
                found[number] = _Torn(tail.group(1), tail.group(2), head.group())
    return found


def _without(page: str, torn: dict[int, _Torn]) -> str:
    """Returns the page without its torn words."""
    if not torn:
        return page
    lines = page.split("\n")
    for number, word in torn.items():
        lines[number] = lines[number].rstrip()[: -len(word.earlier + word.before) - 1]
        lines[number + 1] = lines[number + 1].lstrip()[len(word.after) :]
    return "\n".join(lines)


def _joined(page: str, torn: dict[int, _Torn], words: _Words, counts: HyphenCounts) -> str:
    if not torn:
        return page
    parts = []
    follows = False
    for number, line in enumerate(page.split("\n")):
        line = line.lstrip() if follows else line
        follows = number in torn
        if follows:
            end = _end_of(torn[number], words)
            counts.kept += "-" in end
            counts.joined += not end
            line = line.rstrip()[:-1] + end
        parts.append(line if follows else line + "\n")
    return "".join(parts).removesuffix("\n")


def _end_of(word: _Torn, words: _Words) -> str:
    """Returns what takes the place of the hyphen and the line's end: nothing, a hyphen, or a hyphen and a blank."""
    before, after = word.before.casefold(), word.next_part.casefold()
    if word.after.casefold() in _CONJUNCTIONS and not (words.count[before + after] or words.count[f"{before}-{after}"]):
        return "- "
    in_compound = bool(word.earlier) or word.after != word.next_part
    return "-" if _belongs(word.before, word.next_part, in_compound, words) else ""


def _belongs(before: str, after: str, in_compound: bool, words: _Words) -> bool:
    """Returns True if the hyphen between the two belongs to the word.

    Args:
        before: the part before the hyphen.
        after: the part after it.
        in_compound: True if the word has other hyphens.
        words: the words of the document.
    """
    capitals = before.isupper() and after.isupper() and len(after) > 1
    if before[-1].isdigit() or after[0].isdigit() or not (after[0].islower() or capitals):
        return True
    left, right = before.casefold(), after.casefold()
    joined, compound = words.count[left + right], words.count[f"{left}-{right}"]
    if joined or compound:
        return compound * _COMPOUND_WEIGHT > joined
    if words.first[left] or words.last[right]:
        return True
    is_first, is_last = words.knows(left), words.knows(right)
    if is_first and is_last and len(left) > 2 and len(right) > 2:
        return True
    if in_compound and (is_first or is_last):
        return True
    if right in _LAST_PARTS and len(left) > 1:
        return True
    if left in _FIRST_PARTS and not _ENDINGS.match(right):
        return (
            in_compound or is_last or left in ("non", "self", "well") or (left[-1] == right[0] and left[-1] in _VOWELS)
        )
    return False
