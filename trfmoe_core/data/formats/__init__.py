"""File formats: one module each. docs/extending.md shows how to add one."""

from trfmoe_core.data.formats.base import FORMATS, Format, kind_of, known_suffixes

__all__ = ["FORMATS", "Format", "kind_of", "known_suffixes"]
