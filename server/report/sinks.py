"""Metric sinks: readers of a run's events that show them elsewhere. One file each, chosen by name in a recipe.

A sink is called with every event as it is recorded. It must not raise: a run outlives whatever its sinks meet.
"""

from collections.abc import Callable
from pathlib import Path

from server.run_folder.journal import Event
from trfmoe_core.config import LogConfig
from trfmoe_core.registry import Registry

Sink = Callable[[Event], None]
MakeSink = Callable[[LogConfig, Path], Sink]
"""(settings of the recipe, run folder) -> sink."""

SINKS: Registry[MakeSink] = Registry("log.sinks", "server.report")
"""By name; each registers itself in a file of this folder."""


def sinks_of(log: LogConfig, run_dir: Path) -> list[Sink]:
    """Returns the sinks of a run.

    Raises:
        ConfigError: there is none of a name.
    """
    names = [*(["wandb"] if log.wandb != "off" else []), *log.sinks]
    return [SINKS.find(name)(log, run_dir) for name in dict.fromkeys(names)]
