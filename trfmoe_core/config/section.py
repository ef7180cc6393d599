"""The base class of all sections of recipes and node settings."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, model_validator

Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]

_YES_OR_NO = {"yes": True, "on": True, "true": True, "no": False, "off": False, "false": False}


class Section(BaseModel):
    """Base of all sections: immutable, without unknown keys and without conversions such as `"3"` to 3.

    What YAML 1.1 and 1.2 read differently is understood either way: `yes`, `no`, `on` and `off` where a setting is true
    or false, `false` where `off` is one of the words to choose from, and `1e3` where a whole number is asked for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _read_words(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping):
            return raw
        meant = {
            key: _meant(cls.model_fields[key].annotation, value)
            for key, value in raw.items()
            if key in cls.model_fields
        }
        return {**raw, **meant}


def _meant(annotation: Any, value: Any) -> Any:
    """Returns the value that is meant where YAML reads a word, a boolean or a whole number as something else."""
    if annotation is bool and isinstance(value, str):
        return _YES_OR_NO.get(value.lower(), value)
    kinds = get_args(annotation) or (annotation,)
    if isinstance(value, float) and int in kinds and float not in kinds and value.is_integer():
        return int(value)
    words = get_args(annotation) if get_origin(annotation) is Literal else ()
    if "off" in words and (value is False or value in ("no", "false")):
        return "off"
    return value
