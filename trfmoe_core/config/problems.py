"""Describes pydantic's validation errors with key, value and remedy."""

import datetime
import difflib
import re
import types
import typing
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from pydantic import BaseModel

LONGEST_KEY = 80
"""Characters of a key or a value that are shown."""

MAX_TEXT = 2000
"""Characters of what a check of our own says."""

PATTERNS = {
    r"^[A-Za-z0-9][A-Za-z0-9._-]*$": "give letters, digits, '.', '_' and '-', and begin with a letter or a digit",
    r"^(auto|cpu|cuda|cuda:\d+)$": "give auto, cpu, cuda, or one CUDA device, such as cuda:0",
    r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$": "give two times of day, such as 20:00-06:00",
}
"""The patterns of settings, in words."""
_BRANCH = re.compile(r"int|float|bool|str|constrained-\w+|dict\[.*\]|literal\[.*\]|[A-Z]\w*Settings|Partition")
"""What pydantic adds to a place where a value may be of several kinds."""
_KINDS = {
    "int_type": "give a whole number",
    "int_from_float": "give a whole number",
    "float_type": "give a number",
    "bool_type": "give true or false",
    "finite_number": "give a finite number",
    "list_type": "give a list",
    "dict_type": "give keys and values",
    "string_type": "give a text",
}
_LIMITS = {
    "greater_than": ("gt", "give more than {}"),
    "greater_than_equal": ("ge", "give {} or more"),
    "less_than": ("lt", "give less than {}"),
    "less_than_equal": ("le", "give {} or less"),
    "string_too_short": ("min_length", "give {} or more characters"),
    "string_too_long": ("max_length", "give {} or fewer characters"),
    "too_short": ("min_length", "give {} or more entries"),
    "literal_error": ("expected", "choose {}"),
}


def describe_problems(kind: type[BaseModel], problems: Sequence[Any]) -> list[tuple[tuple[int | str, ...], str]]:
    """Describes the entries of `ValidationError.errors()` about a `kind`.

    Returns:
        For each value that is wrong its place, and a text that begins with the dotted key. A value that may be one of
        several kinds and is none of them is told once.
    """
    by_place: dict[tuple[int | str, ...], list[Any]] = {}
    for problem in problems:
        place = tuple(part for part in problem["loc"] if not _BRANCH.fullmatch(str(part)))
        by_place.setdefault(place, []).append(problem)
    found = []
    for place, those in by_place.items():
        told = [one for one in those if one["type"] not in ("model_type", "is_instance_of")] or those
        text = _describe(kind, place, told[0])
        found.append((place, " or ".join([text, *(_remedy(one) for one in told[1:])])))
    return found


def _describe(kind: type[BaseModel], place: tuple[int | str, ...], problem: Any) -> str:
    key = ".".join(_short(str(part)) for part in place)
    value = problem.get("input")
    if problem["type"] == "extra_forbidden":
        known = _known_keys(kind, place[:-1])
        near = difflib.get_close_matches(_short(str(place[-1])), known, 1, 0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(sorted(known))}"
        return f"{key}: unknown key; {hint}"
    if problem["type"] == "value_error":
        text = str(problem["ctx"]["error"])[:MAX_TEXT]
        field = text.partition(":")[0].isidentifier()
        return f"{key + ('.' if field else ': ') if key else ''}{text}"
    if problem["type"] == "missing":
        return f"{key}: missing; add it"
    if problem["type"] == "string_type" and isinstance(value, bool | int | float | None | datetime.date):
        return f"{key}: {_shown(value)} is no text to YAML; put it in quotes, as it is meant"
    if problem["type"] == "list_type" and isinstance(value, str):
        return f"{key}: {_shown(value)} is one entry; write it as a list: [{_short(value)}]"
    if problem["type"] == "model_type":
        return f"{key}: {_shown(value)} is no section; give keys and values, or leave it out for the defaults"
    return f"{key}: {_shown(value)} is not allowed; {_remedy(problem)}"


def nearest_file(name: str, candidates: list[str]) -> str | None:
    """Returns the file that was probably meant by a name, or None. A suffix that is the same makes no name similar."""
    stems = {PurePath(candidate).stem: candidate for candidate in candidates}
    near = difflib.get_close_matches(PurePath(name).stem, list(stems), 1)
    return stems[near[0]] if near else None


def _remedy(problem: Any) -> str:
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "string_pattern_mismatch" and context["pattern"] in PATTERNS:
        return PATTERNS[context["pattern"]]
    if kind in _LIMITS:
        name, text = _LIMITS[kind]
        limit = context[name]
        shown = f"{limit:,}" if isinstance(limit, int) and limit >= 10_000 else limit
        return text.format(shown)
    message = str(problem["msg"])
    return _KINDS.get(kind, f"{message[0].lower()}{message[1:]}")


def _shown(value: Any) -> str:
    """Returns a value as YAML's readers know it, and not too long."""
    words: dict[Any, str] = {True: "true", False: "false", None: "null"}
    text = words[value] if isinstance(value, bool | None) else repr(value)
    return _short(text)


def _short(text: str) -> str:
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
