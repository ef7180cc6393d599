"""Families of stock models: how the folders that transformers reads and writes name their settings and weights.

A family is one module, which registers itself in `FAMILIES` under the `model_type` of its config.json. A new family is
a new module here with a subclass of `Family` and `@FAMILIES.register(name)`, and a line in its test.
"""

from trfmoe_core.model.stock.families.base import FAMILIES, Family, UnsupportedError

__all__ = ["FAMILIES", "Family", "UnsupportedError"]
