"""Trains what is compared: a dense model, and from it one together, one of each owner, and one of all text."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.processes.group import ProcessGroup
from scripts.run.federated_run import run_federation
from scripts.run.local.command import run_local
from scripts.run.local.recipe import local_name, local_recipe
from scripts.run.models.exporting import export_round
from scripts.run.models.importing import start_run
from scripts.run.outcome import RunOutcome
from scripts.terminal.output import Output
from server.run_folder.folder import RunFolder
from server.run_folder.models import choose_round
from trfmoe_core.config import Recipe
from trfmoe_core.config.sources import DataEntry
from trfmoe_core.errors import RunError

TOGETHER, CENTRAL = "together", "one machine"
LOG = "train.log"
LOOK_AGAIN_S = 0.5


@dataclass(frozen=True)
class Continued:
    """A dense model's run, and the runs that go on from it.

    Attributes:
        dense: The run of the dense model.
        together: The federation's outcome.
        runs: Every run that goes on, by name: `TOGETHER`, `CENTRAL`, and each owner's alone by the owner's name.
    """

    dense: RunFolder
    together: RunOutcome
    runs: dict[str, RunFolder]


def train_all(dense: Recipe, recipe: Recipe, output: Output, jobs: int = 2) -> Continued:
    """Returns all models, each trained on as many tokens as the federation's nodes together, or its owner's share.

    Args:
        dense: Recipe of the dense model, on one machine.
        recipe: Of the federation that goes on with it.
        output: Where the dense model's and the federation's training is shown.
        jobs: Runs on one machine that train at a time.

    Raises:
        TRFMoEError: What ended one of them.
    """
    output.line("\n1. a dense model learns general text")
    one = run_local(local_recipe(dense, []).model_copy(update={"name": local_name(dense.name)}), output)
    if not one.completed:
        raise RunError(f"{one.run_dir}: the dense model was not trained to the end ({one.reason}); start again")
    folder = RunFolder.open(one.run_dir)
    out = folder.path / "export"
    export_round(folder, choose_round(folder, last=True), out)
    output.line(f"\n2. three owners go on with it together: {out} becomes a mixture of {recipe.model.experts} experts")
    runs = {TOGETHER: start_run(out, recipe, None, None)}
    together = run_federation(runs[TOGETHER].recipe, output, run_dir=runs[TOGETHER].path)
    output.line("\n3. for comparison: each owner alone, and one machine with all text")
    runs |= {name: start_run(out, one, None, None) for name, one in comparisons(recipe).items()}
    _train_apart({name: run for name, run in runs.items() if name != TOGETHER}, jobs, output)
    return Continued(folder, together, runs)


def comparisons(recipe: Recipe) -> dict[str, Recipe]:
    """Returns the recipes of one machine: of each owner with its batches, and of all text with all batches."""
    steps = recipe.rounds.total_steps
    found = {}
    for node in recipe.nodes:
        found[node.name] = _alone(recipe, node.name, node.data, steps, recipe.training.batch_size)
    batch = recipe.training.batch_size * len(recipe.nodes)
    found[CENTRAL] = _alone(recipe, "central", all_sources(recipe), steps, batch)
    return found


def all_sources(recipe: Recipe) -> list[DataEntry]:
    """Returns the data of all nodes; what several nodes have comes once, with the sum of its weights."""
    merged: dict[str, Any] = {}
    for node in recipe.nodes:
        for entry in node.data:
            key = entry if isinstance(entry, str) else entry.model_copy(update={"weight": 1.0}).model_dump_json()
            weight = 1.0 if isinstance(entry, str) else entry.weight
            before, so_far = merged.get(key, (entry, 0.0))
            merged[key] = (before, so_far + weight)
    return [
        entry if isinstance(entry, str) else entry.model_copy(update={"weight": weight})
        for entry, weight in merged.values()
    ]


def _alone(recipe: Recipe, name: str, sources: Sequence[DataEntry], steps: int, batch: int) -> Recipe:
    training = recipe.training.model_copy(update={"steps": steps, "batch_size": batch})
    local = recipe.local.model_copy(update={"evaluate_every": steps, "save_every": steps})
    data = recipe.data.model_copy(update={"sources": list(sources)})
    changes = {"training": training, "local": local, "data": data, "nodes": [], "witness": None}
    return local_recipe(recipe.model_copy(update=changes), []).model_copy(
        update={"name": local_name(f"{recipe.name}-{name}")}
    )


def _train_apart(runs: Mapping[str, RunFolder], jobs: int, output: Output) -> None:
    """Trains runs in processes of their own, `jobs` at a time, which end with this one however that ends.

    Raises:
        RunError: One of them did not end well.
    """
    waiting, running = list(runs), set[str]()
    with ProcessGroup() as group:
        while waiting or running:
            while waiting and len(running) < jobs:
                name = waiting.pop(0)
                argv = [sys.executable, "-m", "scripts", "train", "--run-dir", str(runs[name].path)]
                group.start(name, argv, dict(os.environ), Path.cwd(), runs[name].path / LOG)
                running.add(name)
            for name in sorted(running):
                code = group.wait(name, LOOK_AGAIN_S)
                if code is None and group.alive:
                    continue
                path = runs[name].path
                if code != 0:
                    raise RunError(f"{path}: training ended with exit code {code}; {path / LOG} says why")
                output.line(f"trained {path}")
                running.remove(name)
