"""Finds or makes the run folder that a command works in."""

import shlex
from pathlib import Path
from typing import Any, Literal

from scripts.terminal.output import Output
from server.run_folder.folder import RunFolder
from trfmoe_core.config import Recipe
from trfmoe_core.errors import ConfigError, RunFolderError


def new_run(recipe: Recipe) -> RunFolder:
    """Returns a new run folder whose recipe keeps every node's state inside it."""
    folder = RunFolder.create(Path(recipe.run_root), recipe)
    folder.write_recipe(_housed(recipe, folder.path))
    return folder


def resumed_run(
    recipe: Recipe, run_dir: Path | None, mode: Literal["federated", "local"], output: Output
) -> RunFolder | None:
    """Returns the folder of `run_dir`, or the latest run of this recipe's name; None when there is none.

    Raises:
        RunFolderError: no run folder, or another coordinator is writing it.
        ConfigError: it was started with another recipe, or as a run of the other mode.
    """
    folder = RunFolder.open(run_dir.absolute()) if run_dir else RunFolder.latest(Path(recipe.run_root), recipe.name)
    if folder is None:
        output.line(f"no run of {recipe.name} below {recipe.run_root} to go on with; starting a new one")
        return None
    started = folder.facts().started.get("mode", mode)
    if started != mode:
        command = "train" if started == "local" else "simulate"
        raise ConfigError(f"{folder.path}: was started as a {started} run; go on with it by trfmoe {command}")
    if mode == "local":
        recipe = _same_batch(recipe, folder.recipe)
    differing = _differences(
        folder.recipe.model_dump(mode="json"), _housed(recipe, folder.path).model_dump(mode="json")
    )
    if differing:
        command = "train" if mode == "local" else "simulate"
        raise ConfigError(
            f"{folder.path}: was started with another recipe; differing:\n  "
            + "\n  ".join(differing[:20])
            + f"\nto go on with it as it was started: trfmoe {command} {shlex.quote(str(folder.path / 'recipe.yaml'))} "
            f"--run-dir {shlex.quote(str(folder.path))}; or start a new run without --resume"
        )
    with folder.lock():
        return folder


def run_folder(path: Path) -> RunFolder:
    """Returns the run folder of a path; a file inside a run folder is as good.

    Raises:
        RunFolderError: no run folder.
    """
    for folder in (path, *path.absolute().parents):
        if (folder / "recipe.yaml").is_file() and (folder / "recipe.sha256").is_file():
            return RunFolder.open(folder.absolute())
    raise RunFolderError(f"{path}: not a run folder nor inside one; give one such as runs/demo-001")


def _same_batch(recipe: Recipe, started: Recipe) -> Recipe:
    """Returns the recipe with the started one's devices and batch size where both have equal batches of all devices."""
    ours, theirs = recipe.training, started.training
    if ours.batch_size * int(ours.devices) != theirs.batch_size * int(theirs.devices):
        return recipe
    same = {"batch_size": theirs.batch_size, "devices": theirs.devices}
    return recipe.model_copy(update={"training": ours.model_copy(update=same)})


def _housed(recipe: Recipe, path: Path) -> Recipe:
    nodes = [
        node.model_copy(update={"state_dir": node.state_dir or str(path / "nodes" / node.name)})
        for node in recipe.nodes
    ]
    return recipe.model_copy(update={"nodes": nodes})


def _differences(there: Any, here: Any, key: str = "") -> list[str]:
    if isinstance(there, dict) and isinstance(here, dict):
        return [
            line
            for name in sorted({*there, *here})
            for line in _differences(there.get(name), here.get(name), f"{key}.{name}" if key else name)
        ]
    if isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        pairs = enumerate(zip(there, here, strict=True))
        return [line for number, (old, new) in pairs for line in _differences(old, new, f"{key}.{number}")]
    return [] if there == here else [f"{key}: {there!r} there, {here!r} here"]
