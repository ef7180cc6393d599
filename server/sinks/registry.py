"""Metric sinks: readers of a run's events that show them elsewhere. One file each, chosen by name in a recipe.

A sink is called with every event as it is recorded. It must not raise: a run outlives whatever its sinks meet.
"""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from server.run_folder.journal import Event
from trfmoe_core.config import LogConfig
from trfmoe_core.registry import Registry

Sink = Callable[[Event], None]
MakeSink = Callable[[LogConfig, Path], Sink]
"""(settings of the recipe, run folder) -> sink."""

SINKS: Registry[MakeSink] = Registry("log.sinks", "server.sinks")
"""By name; each registers itself in a file of this folder."""

PACKAGES = {"prometheus": ("prometheus_client", "prometheus-client"), "tensorboard": ("tensorboard", "tensorboard")}
"""Sink -> the module that it needs and that is not always installed, and the name by which pip installs it."""


def sink_names(log: LogConfig) -> list[str]:
    """Returns the names of the sinks of a run."""
    switched = [*(["wandb"] if log.wandb != "off" else []), *(["tensorboard"] if log.tensorboard else [])]
    return list(dict.fromkeys([*switched, *log.sinks]))


def sinks_of(log: LogConfig, run_dir: Path) -> list[Sink]:
    """Returns the sinks of a run.

    Raises:
        ConfigError: there is none of a name.
    """
    return [SINKS.find(name)(log, run_dir) for name in sink_names(log)]


def lacking(log: LogConfig) -> list[str]:
    """Returns a warning for every sink of a run whose package is not installed."""
    found = []
    for name in sink_names(log):
        module, package = PACKAGES.get(name, ("", ""))
        if module and find_spec(module) is None:
            found.append(f"{name} shows nothing of this run, because its package is missing: pip install {package}")
    return found
