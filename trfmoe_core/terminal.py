"""Text from elsewhere, made safe to show on a terminal and in a log."""

import unicodedata

# Marks that turn the direction of writing: they show a text in another order than it has.
_DIRECTION = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
# Invisible letters that writing needs: joiners of Persian and Indic scripts and of emoji, the soft hyphen.
_NEEDED = "\u200c\u200d\u00ad"
_LAYOUT = "\n\t"
_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def visible(text: str, layout: str = _LAYOUT) -> str:
    """Returns the text with everything escaped that a terminal would obey or not show.

    Those are control characters (ESC and C1 among them), marks of direction, surrogates, and letters that Unicode does
    not know. Spaces of every width and letters of every script stay.

    Args:
        text: From wherever.
        layout: Control characters that stay; empty for text that has to fit on one line.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(letter if letter in layout or _is_shown(letter) else _escaped(letter) for letter in text)


def _is_shown(letter: str) -> bool:
    if letter in _NEEDED:
        return True
    return letter not in _DIRECTION and unicodedata.category(letter) not in _HIDDEN


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")
