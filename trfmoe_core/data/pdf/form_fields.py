"""Values of form fields as part of a page's text."""

from collections.abc import Iterable

_LONG = 16
_GLYPH_WIDTH, _LINE_HEIGHT = 0.5, 1.15
"""Of an average letter and of a line, in font sizes."""
_SMALLEST_FONT = 4.0
"""Points; the size of a font that fits itself to the field."""
_OVERFULL = 2
_MANY = 1000
"""Values of so many characters are never cut."""


def shown_part(value: str, width: float, height: float, font_size: float) -> str:
    """Returns the part of a value that its field shows, or all of it if it is not much longer.

    Args:
        value: the value.
        width: of the field, in points.
        height: of the field, in points.
        font_size: in points; 0 if the text is fitted to the field.
    """
    size = max(font_size, _SMALLEST_FONT)
    letters = int(abs(width * height) / (size * size * _GLYPH_WIDTH * _LINE_HEIGHT))
    return value if len(value) <= max(_OVERFULL * letters, _MANY) else value[: max(letters, _MANY)]


def with_values(text: str, values: Iterable[tuple[str, str]]) -> str:
    """Returns the text of a page with the values of its fields on lines below it.

    Args:
        text: the text of the page.
        values: name and value of every field on it. Of two widgets of one field the second is left out, and so is a
            long value that the page shows already.
    """
    shown = " ".join(text.split())
    lines: dict[tuple[str, str], str] = {}
    for name, value in values:
        value = value.replace("\r\n", "\n").replace("\r", "\n").strip()
        flat = " ".join(value.split())
        if flat and not (len(flat) >= _LONG and flat in shown):
            lines[name, flat] = value
    return "\n".join([text.rstrip("\n"), *lines.values()]) if lines else text
