"""Finds the column of texts in a parquet schema. Names of other columns may be anything, also no UTF-8."""

from typing import Any, NamedTuple

from trfmoe_core.data.documents.reports import shortened

TEXT_COLUMN, LANGUAGE_COLUMN = "text", "language"
_LISTED = 24
_TEXT_TYPES = ("STRING", "NONE", "JSON", "ENUM", "UNDEFINED")
_UNREADABLE = "(a name that is not UTF-8)"


class ColumnError(Exception):
    """A file has no such column, or several."""


class _Leaf(NamedTuple):
    number: int
    path: str
    kind: str
    is_text: bool


def find_column(schema: Any, name: str) -> int:
    """Returns the index of the only leaf of strings or bytes called `name`, or else of the only one in a struct.

    Raises:
        ColumnError: there is none, or there are several; the message says what there is.
    """
    leaves = [_leaf(schema.column(index), index) for index in range(len(schema))]
    for called in (
        [leaf for leaf in leaves if leaf.path == name],
        [leaf for leaf in leaves if leaf.path.endswith(f".{name}")],
        [leaf for leaf in leaves if leaf.path.startswith(f"{name}.")],
    ):
        fitting = [leaf for leaf in called if leaf.is_text]
        if len(fitting) == 1:
            return fitting[0].number
        if fitting:
            raise ColumnError(f"{len(fitting)} columns could be {name!r}: {_described(fitting)}; rename all but one")
        if called:
            raise ColumnError(f"column {name!r} holds no strings: {_described(called)}")
    raise ColumnError(f"no column {name!r}; it has {_described(leaves)}")


def _leaf(column: Any, index: int) -> _Leaf:
    try:
        path = column.path
    except UnicodeDecodeError:
        path = _UNREADABLE
    logical = column.logical_type.type
    kind = column.physical_type.lower() if logical == "NONE" else logical.lower()
    flat = column.max_repetition_level == 0
    is_text = flat and column.physical_type == "BYTE_ARRAY" and logical in _TEXT_TYPES
    return _Leaf(index, path, kind if flat else f"list of {kind}", is_text)


def _described(leaves: list[_Leaf]) -> str:
    names = [f"{shortened(leaf.path)} ({leaf.kind})" for leaf in leaves[:_LISTED]]
    return ", ".join(names) + ", ..." * (len(leaves) > _LISTED) if names else "none"
