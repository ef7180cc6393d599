"""File formats: one module each, which registers itself in `FORMATS` by its name.

A new format is a new module here with a `Format` and `FORMATS.add(...)`, and a test with a bad twin.
"""

from trfmoe_core.data.formats.base import FORMATS, Format, kind_of, known_suffixes

__all__ = ["FORMATS", "Format", "kind_of", "known_suffixes"]
