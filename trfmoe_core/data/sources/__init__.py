"""Where a node's documents come from: one module a source, which registers itself in `SOURCES` by its name.

A new source is a new module here with a `DataSource` and `SOURCES.add(...)`, and a test with a bad twin.
"""

from trfmoe_core.data.sources.base import Context, DataSource, Source, open_sources

__all__ = ["Context", "DataSource", "Source", "open_sources"]
