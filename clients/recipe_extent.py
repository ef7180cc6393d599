"""How long a recipe may be before a node looks at it: each wrong key costs time and a line of an error message."""

from collections.abc import Collection, Mapping
from typing import Any

from clients.refusals import RefusedError
from strategies.exchange.refusals import Refusal

MAX_VALUES, MAX_CHARACTERS = 10_000, 200_000
"""Of a recipe as a coordinator sends it: keys and values together, and their text. A usual one has a few hundred."""


def check_extent(recipe: Mapping[str, object]) -> None:
    """Refuses a recipe that is longer than any real one, before the time and the log lines that it takes to check it.

    Args:
        recipe: What the coordinator sent.

    Raises:
        RefusedError: it has more values or more text.
    """
    values, characters = 0, 0
    left: list[Any] = [recipe]
    while left:
        value = left.pop()
        if isinstance(value, str):
            characters += len(value)
        parts = [value.keys(), value.values()] if isinstance(value, Mapping) else [value]
        inner = [part for part in parts if not isinstance(part, str) and isinstance(part, Collection)]
        values += sum(len(part) for part in inner)
        if values > MAX_VALUES or characters > MAX_CHARACTERS:
            raise RefusedError(
                Refusal(code="recipe"),
                f"the coordinator's recipe has more than {MAX_VALUES} keys and values or {MAX_CHARACTERS} characters, "
                "which no recipe needs; nothing of it was used",
            )
        for part in inner:
            left += part
