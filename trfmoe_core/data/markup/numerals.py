"""Numbers of list items in the styles that word processors have."""

_ROMAN = (
    *((1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l"), (40, "xl")),
    *((10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i")),
)
_MAX_ROMAN = 4000
_MAX_REPEATS = 8


def numeral(number: int, style: str) -> str:
    """Returns a number as it is shown, e.g. `iv` for 4 in the style `lowerRoman`. Unknown styles are decimal."""
    if style in ("lowerLetter", "a"):
        return _letters(number)
    if style in ("upperLetter", "A"):
        return _letters(number).upper()
    if style in ("lowerRoman", "i"):
        return _roman(number)
    if style in ("upperRoman", "I"):
        return _roman(number).upper()
    if style == "decimalZero":
        return f"{number:02d}"
    return "" if style == "none" else str(number)


def _letters(number: int) -> str:
    """Returns a to z, then aa to zz, and so on, as Word counts."""
    repeats, index = divmod(number - 1, 26)
    return chr(ord("a") + index) * (repeats + 1) if number > 0 and repeats < _MAX_REPEATS else str(number)


def _roman(number: int) -> str:
    if not 0 < number < _MAX_ROMAN:
        return str(number)
    text = ""
    for value, letters in _ROMAN:
        count, number = divmod(number, value)
        text += letters * count
    return text
