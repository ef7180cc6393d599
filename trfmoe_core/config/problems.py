"""Describes pydantic's validation errors with key, value and remedy."""

import datetime
import difflib
import types
import typing
from typing import Any

from pydantic import BaseModel

LONGEST_KEY = 80
"""Characters of a key or a value that are shown."""

MAX_TEXT = 2000
"""Characters of what a check of our own says."""


def describe_problem(kind: type[BaseModel], problem: Any) -> str:
    """Describes one entry of `ValidationError.errors()` about a `kind`. The text begins with the dotted key."""
    key = ".".join(_shown(str(part)) for part in problem["loc"] if part != "constrained-str")
    value = problem.get("input")
    if problem["type"] == "extra_forbidden":
        known = _known_keys(kind, problem["loc"][:-1])
        near = difflib.get_close_matches(_shown(str(problem["loc"][-1])), known, 1, 0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(sorted(known))}"
        return f"{key}: unknown key; {hint}"
    if problem["type"] == "value_error":
        text = str(problem["ctx"]["error"])[:MAX_TEXT]
        field = text.partition(":")[0].isidentifier()
        return f"{key + ('.' if field else ': ') if key else ''}{text}"
    if problem["type"] == "missing":
        return f"{key}: missing; add it"
    if problem["type"] == "string_type" and isinstance(value, bool | int | float | None | datetime.date):
        return f"{key}: {value!r} is no text to YAML; put it in quotes, as it is meant"
    if problem["type"] == "list_type" and isinstance(value, str):
        return f"{key}: {_shown(repr(value))} is one entry; write it as a list: [{_shown(value)}]"
    if problem["type"] == "model_type":
        return f"{key}: {_shown(repr(value))} is no section; give keys and values, or leave it out for the defaults"
    return f"{key}: {_shown(repr(value))} is not allowed; {problem['msg'][0].lower()}{problem['msg'][1:]}"


def _shown(text: str) -> str:
    return text if len(text) <= LONGEST_KEY else text[: LONGEST_KEY - 3] + "..."


def _known_keys(kind: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    current: Any = kind
    for part in loc:
        if isinstance(part, int):
            continue
        if not (isinstance(current, type) and issubclass(current, BaseModel) and part in current.model_fields):
            return []
        current = _inner_model(current.model_fields[part].annotation)
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []


def _inner_model(annotation: Any) -> Any:
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) in (typing.Union, list):
        for inner in typing.get_args(annotation):
            found = _inner_model(inner)
            if isinstance(found, type) and issubclass(found, BaseModel):
                return found
    return annotation
