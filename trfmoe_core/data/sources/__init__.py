"""Where a node's documents come from: one module per source. docs/extending.md shows how to add one."""

from trfmoe_core.data.sources.base import DataSource, OpenContext, OpenedSource
from trfmoe_core.data.sources.entries import check_sources, describe_sources, open_sources

__all__ = ["DataSource", "OpenContext", "OpenedSource", "check_sources", "describe_sources", "open_sources"]
