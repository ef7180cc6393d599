"""The transport settings that benchmarks compare: name -> the recipe's `transport` section."""

from typing import Any, NamedTuple

TRANSPORTS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16": {"broadcast": "bfloat16", "updates": "bfloat16"},
    "bfloat16 down, int8 up": {"broadcast": "bfloat16", "updates": "int8"},
    "int8": {"broadcast": "bfloat16", "difference": "int8", "updates": "int8"},
    "int4": {"broadcast": "bfloat16", "difference": "int8", "updates": "int4"},
}
"""`int8` and `int4` send differences of the model in int8, and updates in the type of their name."""


class Way(NamedTuple):
    """What nodes do with experts that they do not hold (`experts.unheld`), and the name of the transport."""

    unheld: str
    transport: str


WAYS = {
    "train float32": Way("train", "float32"),
    "train bfloat16": Way("train", "bfloat16"),
    "train bfloat16 down, int8 up": Way("train", "bfloat16 down, int8 up"),
    "train int8 differences, int8 up": Way("train", "int8"),
    "absent bfloat16 down, int8 up": Way("absent", "bfloat16 down, int8 up"),
    "train int8 differences, int4 up": Way("train", "int4"),
    "absent int8 differences, int8 up": Way("absent", "int8"),
}
