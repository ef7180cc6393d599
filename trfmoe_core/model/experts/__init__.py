"""Kinds of experts: one module each, which registers itself in `EXPERTS` under the name that a recipe gives.

A new kind is a new module here with a subclass of `Experts` and `@EXPERTS.register(name)`, and a test.
"""

from trfmoe_core.model.experts.base import EXPERTS, Experts, Multiply

__all__ = ["EXPERTS", "Experts", "Multiply"]
