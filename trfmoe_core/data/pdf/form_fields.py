"""Values of form fields as part of a page's text."""

from collections.abc import Iterable

_LONG = 16


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
    return "\n".join([text, *lines.values()]) if lines else text
