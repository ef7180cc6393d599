"""Kinds of attention: one module each, which registers itself in `ATTENTIONS` under the name that a recipe gives.

A new kind is a new module here with a subclass of `Attention` and `@ATTENTIONS.register(name)`, and a test.
"""

from trfmoe_core.model.attention.base import ATTENTIONS, Attention

__all__ = ["ATTENTIONS", "Attention"]
