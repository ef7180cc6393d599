"""Runs a recipe through the real ServerApp, strategy and ClientApp in one process."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flwr.app import Message

from clients.app import app as client_app
from scripts.experiments.in_process import InProcessGrid
from server.app import run
from server.run_folder.folder import RunFolder
from server.run_folder.journal import read_events
from trfmoe_core.config import Recipe

Tamper = Callable[[int, Message], Message | None]
Exchange = Callable[[Mapping[str, Message]], Mapping[str, Message]]


def grid_of(folder: RunFolder, tamper: Tamper | None = None, exchange: Exchange | None = None) -> InProcessGrid:
    """Returns a grid with one node for each entry of the recipe; `exchange` sees all replies of a round at once."""
    count = len(folder.recipe.nodes)
    configs = [{"partition-id": number, "num-partitions": count} for number in range(count)]
    return InProcessGrid(client_app, configs, {"recipe": str(folder.path / "recipe.yaml")}, tamper, exchange=exchange)


def run_recipe(
    recipe: Recipe, tamper: Tamper | None = None, exchange: Exchange | None = None
) -> tuple[RunFolder, list[dict[str, Any]]]:
    """Runs a recipe to its end and returns its folder and its events."""
    folder = RunFolder.create(Path(recipe.run_root), recipe)
    run(grid_of(folder, tamper, exchange), folder)
    return folder, read_events(folder.events_path)


def of_kind(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Returns the events of one kind."""
    return [event for event in events if event["event"] == kind]
