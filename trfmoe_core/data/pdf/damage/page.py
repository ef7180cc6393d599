"""The raw text of a page, with what the kinds of damage count in it."""

import re
import unicodedata
from functools import cached_property

_CASED_SCRIPTS = re.compile("[A-Za-z\u00aa-\u024f\u0370-\u052f\u0531-\u0587\u0590-\u06ff\u1e00-\u1fff]")


class RawPage:
    """The text of a page as an engine gives it, before any cleaning. NUL characters do not count."""

    def __init__(self, text: str) -> None:
        """Takes the text."""
        self.text = text.replace("\0", "")

    @cached_property
    def words(self) -> list[str]:
        """What stands between blanks."""
        return self.text.split()

    @cached_property
    def lines(self) -> list[str]:
        """Lines that are not blank."""
        return [line for line in self.text.split("\n") if line.strip()]

    @cached_property
    def size(self) -> int:
        """Number of characters that are no blanks."""
        return sum(map(len, self.words))

    @cached_property
    def characters(self) -> dict[str, int]:
        """How often every character occurs."""
        return {character: self.text.count(character) for character in set(self.text)}

    @cached_property
    def num_letters(self) -> int:
        """Number of letters of any script."""
        return sum(count for character, count in self.characters.items() if character.isalpha())

    def share(self, characters: int) -> float:
        """Returns the share of the page that so many characters are."""
        return characters / self.size if self.size else 0.0


def has_spaced_words(word: str) -> bool:
    """Returns True if `word` begins in a script that sets blanks between words."""
    return _CASED_SCRIPTS.match(word) is not None


def is_unreadable(character: str) -> bool:
    """Returns True for characters that stand for no letter or sign: control, private use, unassigned, U+FFFD."""
    return character == "\ufffd" or (
        unicodedata.category(character) in ("Cc", "Cn", "Co", "Cs") and character not in "\t\n\r"
    )
