"""Finds or makes the run folder that a command works in."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from scripts.terminal.output import Output
from server.run_folder.folder import RunFolder
from trfmoe_core.config import Recipe
from trfmoe_core.errors import ConfigError, RunFolderError

RUN_ROOT = Path("runs")
"""Where runs lie unless a recipe's `run_root` says otherwise."""
LISTED_RUNS = 10
Mode = Literal["federated", "local"]
Difference = tuple[str, Any, Any]


def new_run(recipe: Recipe) -> RunFolder:
    """Returns a new run folder whose recipe keeps every node's state inside it."""
    folder = RunFolder.create(Path(recipe.run_root), recipe)
    folder.write_recipe(housed(recipe, folder.path))
    return folder


def housed(recipe: Recipe, path: Path) -> Recipe:
    """Returns a recipe whose nodes keep their state in a run folder, but for those that say where."""
    nodes = [
        node.model_copy(update={"state_dir": node.state_dir or str(path / "nodes" / node.name)})
        for node in recipe.nodes
    ]
    return recipe.model_copy(update={"nodes": nodes})


def as_started(recipe: Recipe, started: Recipe) -> Recipe:
    """Returns the recipe with the threads of the run that it goes on with, if it leaves their number open.

    Releases whose default was one thread wrote that into the run's recipe.
    """
    if recipe.training.threads != "auto":
        return recipe
    training = recipe.training.model_copy(update={"threads": started.training.threads})
    return recipe.model_copy(update={"training": training})


def find_run(recipe: Recipe, run_dir: Path | None, mode: Mode) -> RunFolder:
    """Returns the folder of `run_dir`, or the latest run of this recipe's name.

    Raises:
        RunFolderError: there is none; the message names the runs there are.
        ConfigError: it was started as a run of the other mode.
    """
    root = Path(recipe.run_root)
    folder = run_folder(run_dir) if run_dir else RunFolder.latest(root, recipe.name)
    if folder is None:
        raise RunFolderError(
            f"--resume: there is no run of {recipe.name} below {root} to go on with; {known_runs(root)}; "
            "leave --resume out to start a new run"
        )
    started = folder.facts().started.get("mode", mode)
    if started != mode:
        command = "train" if started == "local" else "simulate"
        raise ConfigError(f"{folder.path}: was started as a {started} run; go on with it by trfmoe {command}")
    return folder


def known_runs(root: Path) -> str:
    """Returns a sentence that names the newest runs below a folder."""
    found = runs_below(root)
    if not found:
        return "there are no runs at all"
    left = f" and {len(found) - LISTED_RUNS} older ones" if len(found) > LISTED_RUNS else ""
    return f"there are {', '.join(path.name for path in found[:LISTED_RUNS])}{left} (--run-dir DIR goes on with one)"


def refuse_differences(folder: RunFolder, found: Sequence[Difference], command: str) -> None:
    """Refuses to go on with a run whose recipe is another one.

    Raises:
        ConfigError: lists up to 20 of the differences.
    """
    if not found:
        return
    again = f"trfmoe {command} --run-dir {shlex.quote(str(folder.path))}"
    raise ConfigError(
        f"{folder.path}: was started with another recipe; differing:\n  "
        + "\n  ".join(f"{key}: {old!r} there, {new!r} here" for key, old, new in found[:20])
        + f"\nto go on with it as it was started: {again}{_repeated(found)}; or start a new run, without --resume and "
        "--run-dir"
    )


def _repeated(found: Sequence[Difference]) -> str:
    """Returns the hint to give the options of the first start again; empty if some of them are no options."""
    if len(found) > LISTED_RUNS or any(isinstance(old, list | dict) for _, old, _ in found):
        return ""
    settings = [shlex.quote(f"{key}={_plain(old)}") for key, old, _ in found]
    return f", or repeat the options of its start: {' '.join(f'--set {one}' for one in settings)}"


def _plain(value: Any) -> str:
    """Returns a value as it is written after `--set KEY=`."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def differences(there: Any, here: Any, key: str = "") -> list[Difference]:
    """Returns (dotted key, value there, value here) of every value that differs."""
    if isinstance(there, dict) and isinstance(here, dict):
        return [
            found
            for name in sorted({*there, *here})
            for found in differences(there.get(name), here.get(name), f"{key}.{name}" if key else name)
        ]
    if isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        pairs = enumerate(zip(there, here, strict=True))
        return [found for number, (old, new) in pairs for found in differences(old, new, f"{key}.{number}")]
    return [] if there == here else [(key, there, here)]


def run_folder(path: Path | None) -> RunFolder:
    """Returns the run folder of a path or of a name below `runs`; without one the latest, and says which.

    A file inside a run folder is as good.

    Raises:
        RunFolderError: no run folder.
    """
    known = runs_below(RUN_ROOT)
    if path is None:
        if not known:
            raise RunFolderError(f"there is no run below {RUN_ROOT}; name a run folder, or make one with trfmoe train")
        Output.note(f"run {known[0]}, the latest")
        return RunFolder.open(known[0].absolute())
    for folder in (path, *path.absolute().parents, RUN_ROOT / path):
        if _is_run(folder):
            return RunFolder.open(folder.absolute())
    shown = ", ".join(str(run) for run in known[:LISTED_RUNS]) + (", ..." if len(known) > LISTED_RUNS else "")
    there = f"there are {shown}" if known else f"there are no runs below {RUN_ROOT}"
    raise RunFolderError(f"{path}: not a run folder nor inside one; {there}")


def run_with_model(path: Path | None) -> RunFolder:
    """Returns the run folder of a path or name; without one the latest that has trained, and says which.

    Raises:
        RunFolderError: no run folder.
    """
    if path is not None:
        return run_folder(path)
    known = runs_below(RUN_ROOT)
    for run in known:
        folder = RunFolder.open(run.absolute())
        if folder.facts().committed:
            newer = "" if run == known[0] else f" that has trained; {known[0].name} is newer and has not"
            Output.note(f"run {run}, the latest{newer}")
            return folder
    return run_folder(None)


def runs_below(root: Path) -> list[Path]:
    """Returns the run folders below `root`, the one that was written to last first."""

    def written(run: Path) -> float:
        journal = run / "events.jsonl"
        return (journal if journal.is_file() else run / "recipe.yaml").stat().st_mtime

    found = [entry for entry in root.iterdir() if _is_run(entry)] if root.is_dir() else []
    return sorted(found, key=lambda run: (written(run), run.name), reverse=True)


def _is_run(folder: Path) -> bool:
    return (folder / "recipe.yaml").is_file() and (folder / "recipe.sha256").is_file()
