"""Scripts that no real text mixes, as when glyph numbers of a Japanese font are taken for Greek or Yi letters."""

import re
import unicodedata
from functools import lru_cache

from trfmoe_core.data.pdf.damage.page import RawPage

_MIN_LETTERS = 8
_FEW = 0.05
# Two scripts besides Latin may be a dictionary, or wrong: the page is worth another reading.
_DOUBTFUL, _SECOND_SCRIPT = 0.1, 0.1
# Scripts by the first word of a character's name, one letter for each that may stand together inside a word.
_GROUPS = {
    **dict.fromkeys(("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO"), "E"),
    **dict.fromkeys(("LATIN", "FULLWIDTH"), "L"),
    **dict.fromkeys(
        (
            "ARMENIAN", "ARABIC", "BENGALI", "CANADIAN", "CHEROKEE", "CYRILLIC", "DEVANAGARI", "ETHIOPIC", "GEORGIAN",
            "GREEK", "GUJARATI", "GURMUKHI", "HEBREW", "KANNADA", "KHMER", "LAO", "MALAYALAM", "MONGOLIAN", "MYANMAR",
            "OGHAM", "ORIYA", "RUNIC", "SINHALA", "SYRIAC", "TAMIL", "TELUGU", "THAANA", "THAI", "TIBETAN", "YI",
        ),
        "",
    ),
}  # fmt: skip
_CODES = {name: group or chr(0x100 + number) for number, (name, group) in enumerate(_GROUPS.items())}
_GREEK, _YI = _CODES["GREEK"], _CODES["YI"]
# Two letters of different scripts in a row. Latin and Greek stand together in formulas, and Latin in Asian text.
_SEAM = re.compile(rf"(?=([^ M])(?!\1)[^ M])(?!L[{_GREEK}E])(?![{_GREEK}E]L).")
_STRAY_MARK = re.compile("(?<![^ ME])M")
_JAPANESE_MARKS = re.compile("[\u3001\u300c\u300d\u30fb\u30fc\u3041-\u30fa]")


def scripts_mixed(page: RawPage) -> float:
    """Returns the share of letters whose neighbour is of a script that does not go with theirs."""
    foreign = sum(count for one, count in page.characters.items() if one > "\u00ff" and one.isalpha())
    if foreign < max(_MIN_LETTERS, _FEW * page.num_letters):
        return 0.0
    text = unicodedata.normalize("NFC", page.text)
    codes = "".join(map(_code, text))
    letters = len(codes) - codes.count(" ") - codes.count("M")
    stray = len(_STRAY_MARK.findall(codes))
    if _YI in codes and _JAPANESE_MARKS.search(text):
        stray += codes.count(_YI)
    share = (len(_SEAM.findall(codes)) + stray) / max(1, letters)
    others = sorted(codes.count(code) for code in set(codes) - set(" LM"))
    is_doubtful = len(others) > 1 and others[-2] >= _SECOND_SCRIPT * letters
    return min(1.0, max(share, _DOUBTFUL if is_doubtful else 0.0))


@lru_cache(4096)
def _code(character: str) -> str:
    """Returns a letter for the character's script, `M` for a mark that belongs to no letter, a blank for others."""
    if character < "A":
        return " "
    if "\u0300" <= character <= "\u036f":
        return "M"
    if not character.isalpha():
        return " "
    return _CODES.get(unicodedata.name(character, "").partition(" ")[0].partition("-")[0], " ")
