"""Runs in a few words: how far they came, how good they are, and what they take on the disk."""

import datetime
from dataclasses import dataclass
from pathlib import Path

from clients.kept.states import give_up, state_folders
from server.report.round_seconds import mean_round_seconds
from server.run_folder.folder import RunFolder
from server.run_folder.history import RunHistory
from server.run_folder.journal import read_events
from trfmoe_core.errors import RunFolderError

_STATE_PARTS = ("nodes", "spill")
"""Folders of a run that only a run that goes on needs."""


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """A run in a few words.

    Attributes:
        path: Its folder.
        mode: federated or local.
        started: Its first start, in local time; empty if it has not begun.
        done: Rounds or steps that are committed.
        planned: Rounds or steps that it is to have.
        unit: What these are: round or step.
        outcome: completed, stopped, failed, running, or interrupted: nobody works on it and it has no end.
        bits_per_byte: The newest on held-out text; None if it was not measured.
        best_round: The best round or step; None if there is none.
        best: Its bits per byte.
        outvoted: Node -> rounds in which it was outvoted.
        seconds: Owner -> seconds of a round, means without the first; empty if no round can be divided.
        size: Bytes of its folder.
        state_size: Bytes of them that only a run that goes on needs.
    """

    path: Path
    mode: str
    started: str
    done: int
    planned: int
    unit: str
    outcome: str
    bits_per_byte: float | None
    best_round: int | None
    best: float | None
    outvoted: dict[str, int]
    seconds: dict[str, float]
    size: int
    state_size: int


def summarize(folder: RunFolder) -> RunSummary:
    """Returns a run in a few words.

    Raises:
        RunFolderError: Its journal cannot be read.
    """
    events = read_events(folder.events_path) if folder.events_path.exists() else []
    history = RunHistory(events)
    moment = datetime.datetime.fromtimestamp(float(events[0]["time"])) if events else None
    outcome = str(history.finished["outcome"]) if history.finished else "interrupted" if events else "not begun"
    measured = {number: event["bits_per_byte"] for number, event in history.evaluated.items()}
    best = history.best_round
    return RunSummary(
        path=folder.path,
        mode=str(history.started.get("mode", "")),
        started=f"{moment:%Y-%m-%d %H:%M}" if moment else "",
        done=max(history.committed, default=0),
        planned=history.num_rounds,
        unit=history.unit,
        outcome="running" if folder.is_locked() else outcome,
        bits_per_byte=measured[max(measured)] if measured else None,
        best_round=best,
        best=measured.get(best) if best is not None else None,
        outvoted={name: len(rounds) for name, rounds in history.outvoted_rounds().items()},
        seconds=mean_round_seconds(events),
        size=_size(folder.path),
        state_size=sum(_size(folder.path / part) for part in _STATE_PARTS),
    )


def run_folders_below(root: Path) -> list[RunFolder]:
    """Returns the run folders below a folder, by name; a run folder itself is one.

    Raises:
        RunFolderError: There is no such folder, or a recipe in it cannot be read.
    """
    if (root / "recipe.yaml").is_file():
        return [RunFolder.open(root.absolute())]
    if not root.is_dir():
        raise RunFolderError(f"{root}: no such folder; name the one that holds your runs, such as runs")
    return [RunFolder.open(path.absolute()) for path in sorted(root.iterdir()) if (path / "recipe.yaml").is_file()]


def drop_state(folder: RunFolder) -> int:
    """Deletes what only a run that goes on needs, and returns its bytes. Model, journal and report stay.

    Raises:
        RunFolderError: Somebody works on the run.
    """
    with folder.lock():
        before = _size(folder.path)
        for node in folder.recipe.nodes:
            base = Path(node.state_dir) if node.state_dir else folder.path / "nodes" / node.name
            if base.is_relative_to(folder.path):
                for path in state_folders(base, node.name).values():
                    give_up(path)
        for path in (folder.path / "spill").glob("*.safetensors"):
            path.unlink(missing_ok=True)
        return before - _size(folder.path)


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
