"""The ways to travel that benchmarks compare: name -> the recipe's `transport` section."""

from typing import Any

TRANSPORTS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16": {"broadcast": "bfloat16", "updates": "bfloat16"},
    "bfloat16 down, int8 up": {"broadcast": "bfloat16", "updates": "int8"},
    "int8": {"broadcast": "bfloat16", "difference": "int8", "updates": "int8"},
    "int4": {"broadcast": "bfloat16", "difference": "int8", "updates": "int4"},
}
"""`int8` and `int4` send differences of the model in int8, and updates in the type of their name."""
