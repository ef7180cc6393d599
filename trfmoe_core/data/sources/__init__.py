"""Where a node's documents come from: one module a source, which registers itself in `SOURCES` by its name.

A new source is a new module here with a `SourceSettings` and `SOURCES.add(...)`, and a test with a bad twin.
"""

from trfmoe_core.data.sources.base import (
    SOURCES,
    Context,
    DataEntry,
    Source,
    SourceSettings,
    deal_parts,
    open_sources,
    resolved_entry,
)

__all__ = [
    "SOURCES",
    "Context",
    "DataEntry",
    "Source",
    "SourceSettings",
    "deal_parts",
    "open_sources",
    "resolved_entry",
]
