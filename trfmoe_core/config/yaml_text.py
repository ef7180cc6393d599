"""YAML as this project reads and writes it: a string that is written is read as the same string.

PyYAML follows YAML 1.1. This project follows YAML 1.2 where the two differ and people are surprised: `1e-3` is a
number, and `yes`, `no`, `on` and `off` are words (a setting that is true or false takes them too,
see `config.section`). The writer quotes everything that YAML 1.1 or 1.2 would not read as text. A key that is given
twice is an error.
"""

import re
from typing import Any

import yaml

from trfmoe_core.terminal import visible

_BOOL_TAG, _FLOAT_TAG = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:float"
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)$")
_EXPONENT = re.compile(r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)[eE][-+]?[0-9]+")
"""A number with an exponent, with or without the dot and the sign that YAML 1.1 asks for."""


class _Loader(yaml.SafeLoader):
    """Reads `1e-3` as a number and `off` as a word, and refuses a key that is given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Returns the mapping.

        Raises:
            yaml.YAMLError: a key is given twice.
        """
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            line = key.start_mark.line + 1
            if first := lines.get((key.tag, key.value)):
                where = f"line {first}" if first == line else f"lines {first} and {line}"
                raise yaml.YAMLError(f"the key {key.value!r} is given twice ({where}); keep one of the two")
            lines[key.tag, key.value] = line
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes what `_Loader` would not read as text."""

    def ignore_aliases(self, data: Any) -> bool:
        """Writes a value that occurs twice twice: people read these files."""
        return True

    def analyze_scalar(self, scalar: str) -> Any:
        """Leaves letters as they are, unless a terminal or a reader of YAML takes one of them for something else."""
        self.allow_unicode = visible(scalar, layout="") == scalar
        return super().analyze_scalar(scalar)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOL_TAG]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOL_TAG, _BOOL, list("tTfF"))
for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(_FLOAT_TAG, re.compile(f"{_EXPONENT.pattern}$"), list("-+.0123456789"))


def load_yaml(text: str) -> Any:
    """Returns the value of a YAML text.

    Raises:
        yaml.YAMLError: the text is no YAML, a key is given twice, or a value has no meaning, such as the date
            2026-02-31. Its text is one line.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        raise yaml.YAMLError(_one_line(error)) from error
    except (ValueError, OverflowError, RecursionError) as error:
        raise yaml.YAMLError(str(error) or type(error).__name__) from error


def dump_yaml(value: Any) -> str:
    """Returns a value as YAML; `load_yaml` returns the same value."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False)


def flow_yaml(value: Any) -> str:
    """Returns a value as YAML in one line, such as `{name: clinic, data: [letters]}`."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, default_flow_style=True, width=float("inf"))
    return text.removesuffix("\n").removesuffix("\n...")


def quoted(text: str | None) -> str:
    """Returns a string as one YAML scalar in double quotes, or `null`."""
    if text is None:
        return "null"
    return yaml.dump(text, Dumper=_Dumper, default_style='"', width=float("inf")).strip()


def _one_line(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return where + ", ".join(part.strip() for part in (error.context, error.problem) if part)
