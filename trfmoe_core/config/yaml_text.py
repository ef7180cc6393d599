"""YAML as this project reads and writes it: a string that is written is read as the same string.

YAML 1.1, which PyYAML follows, reads `1e-3` as text and YAML 1.2 reads it as a number. Here it is a number, unless it
stands in quotes; so the writer quotes a string that looks like one.
"""

import re
from typing import Any

import yaml

_FLOAT_TAG = "tag:yaml.org,2002:float"
_EXPONENT = re.compile(r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)[eE][-+]?[0-9]+")
"""A number with an exponent, with or without the dot and the sign that YAML 1.1 asks for."""


class _Loader(yaml.SafeLoader):
    """Reads `1e-3` as a number."""


class _Dumper(yaml.SafeDumper):
    """Quotes what `_Loader` would not read as text."""

    def ignore_aliases(self, data: Any) -> bool:
        """Writes a value that occurs twice twice: people read these files."""
        return True


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(_FLOAT_TAG, re.compile(f"{_EXPONENT.pattern}$"), list("-+.0123456789"))


def load_yaml(text: str) -> Any:
    """Returns the value of a YAML text.

    Raises:
        yaml.YAMLError: the text is no YAML, or a value in it has no meaning, such as the date 2026-02-31.
    """
    try:
        return yaml.load(text, _Loader)
    except (ValueError, OverflowError, RecursionError) as error:
        raise yaml.YAMLError(str(error) or type(error).__name__) from error


def dump_yaml(value: Any) -> str:
    """Returns a value as YAML; `load_yaml` returns the same value."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False)


def quoted(text: str | None) -> str:
    """Returns a string as one YAML scalar in double quotes, or `null`."""
    if text is None:
        return "null"
    return yaml.dump(text, Dumper=_Dumper, default_style='"', width=float("inf")).strip()
