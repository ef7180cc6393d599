"""What the owner of a node sees of it: the coordinator's answer, its own rounds, and what they left on its disk."""

import datetime
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from clients.kept.journal_heads import HEADS_FILE
from clients.kept.own_rounds import OwnRun, own_runs
from clients.kept.progress import Progress, read_progress
from clients.kept.states import give_up, state_folders
from clients.settings import state_base, state_folder
from scripts.deploy.connection_check import Registration, registration
from scripts.deploy.kit.kit import NODE_FILE, read_connection
from server.report.sections import spans
from trfmoe_core.config import NodeSettings, load_node_file
from trfmoe_core.counts import counted
from trfmoe_core.errors import ConfigError

KNOWN: dict[Registration, str] = {
    "known": "the coordinator knows this node's key",
    "unknown": "the coordinator does not know this node's key: it was revoked or never registered; ask the operator",
    "refused": "the coordinator refuses this node's signature; set the clocks of both machines right",
    "odd": "the coordinator gives an answer that this release does not know",
    "away": "the coordinator is not reached",
}


@dataclass(frozen=True, kw_only=True)
class NodeView:
    """A node as its owner sees it.

    Attributes:
        name: The node's.
        registration: What the coordinator answers about its key.
        runs: The runs in which it took part, the last one last.
        sizes: Run -> bytes that the node's state of it takes.
        progress: Run -> how far its last training is, where that is known.
        heads: Run -> the file in which the node noted the coordinator's journal, for `trfmoe verify --heads`.
    """

    name: str
    registration: Registration
    runs: list[OwnRun]
    sizes: dict[str, int]
    progress: dict[str, Progress]
    heads: dict[str, Path]


def view_node(folder: Path) -> NodeView:
    """Returns what a node's folder shows its owner.

    Raises:
        ConfigError: It is no node's folder, or something in it cannot be read.
    """
    settings = read_settings(folder)
    try:
        key = serialization.load_ssh_private_key((folder / "node.key").read_bytes(), None)
        runs = own_runs(state_base(settings), settings.name)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder}: cannot be read ({error}); use the account of the node") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{folder / 'node.key'}: is no EC key; make one with `trfmoe node rotate`")
    sizes = {run_id: size_of(path) for run_id, path in state_folders(state_base(settings), settings.name).items()}
    places = {run.run_id: state_folder(settings, run.run_id) / HEADS_FILE for run in runs}
    return NodeView(
        name=settings.name,
        registration=registration(folder, read_connection(folder), key)[0],
        runs=runs,
        sizes=sizes,
        progress={run.run_id: found for run in runs if (found := read_progress(state_folder(settings, run.run_id)))},
        heads={run_id: path for run_id, path in places.items() if path.is_file()},
    )


def clean_node(folder: Path, wanted: Collection[str]) -> dict[str, int]:
    """Deletes a node's state of runs, but not its notes; returns the bytes of each.

    Args:
        folder: The node's folder.
        wanted: Ids of runs, or their beginnings.

    Raises:
        ConfigError: It is no node's folder, or it keeps no state of a run.
    """
    settings = read_settings(folder)
    kept = state_folders(state_base(settings), settings.name)
    for start in wanted:
        if sum(run_id.startswith(start) for run_id in kept) != 1:
            found = ", ".join(run_id[:8] for run_id in kept) or "none"
            raise ConfigError(f"{start}: is not the beginning of one run's id; this node keeps the state of: {found}")
    freed = {}
    for run_id, path in kept.items():
        if any(run_id.startswith(start) for start in wanted):
            before = size_of(path)
            give_up(path)
            freed[run_id] = before - size_of(path)
    return freed


def read_settings(folder: Path) -> NodeSettings:
    """Returns the settings in a node's folder.

    Raises:
        ConfigError: It is no node's folder, or its settings are wrong.
    """
    if not (folder / NODE_FILE).is_file():
        raise ConfigError(f"{folder}: no {NODE_FILE} in it; give a node's folder of `trfmoe deploy init`")
    return load_node_file(folder / NODE_FILE)


def run_text(run: OwnRun, size: int, progress: Progress | None = None) -> str:
    """Returns one line about a run: rounds, last loss, verdicts, what left the machine, what is kept."""
    parts = [
        f"run {run.name or '?'} {run.run_id[:8]}: {_ranges(run.rounds)}" if run.rounds else f"run {run.run_id[:8]}"
    ]
    if progress is not None and progress.round not in run.rounds:
        moment = datetime.datetime.fromtimestamp(progress.time)
        parts.append(f"round {progress.round}: {progress.text} at {moment:%H:%M:%S}")
    if run.last:
        parts.append(f"last answer {datetime.datetime.fromtimestamp(run.last):%Y-%m-%d %H:%M}")
    if run.loss is not None:
        parts.append(f"loss {run.loss:.4f}")
    if run.bits_per_byte is not None:
        parts.append(f"bits/byte {run.bits_per_byte:.4f}")
    parts.append(_verdicts(run))
    parts.append(f"left this machine: {megabytes(run.bytes)} of updates and numbers")
    parts.append(f"kept here: {megabytes(size)}")
    return "; ".join(parts)


def megabytes(size: int) -> str:
    """Returns a size for people."""
    return f"{size / 1e6:.1f} MB"


def size_of(folder: Path) -> int:
    """Returns the bytes of all files below a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _verdicts(run: OwnRun) -> str:
    judged = len(run.accepted) + len(run.outvoted)
    if not judged:
        return "no verdict yet"
    if not run.outvoted:
        return f"accepted in all {judged} rounds with a verdict"
    blocks = sum(run.outvoted.values())
    return (
        f"outvoted on {counted(blocks, 'block')} in {_ranges(run.outvoted)}, accepted in "
        f"{counted(len(run.accepted), 'round')}"
    )


def _ranges(numbers: Iterable[int]) -> str:
    """Returns numbers of rounds in words, such as `rounds 1-4, 6`."""
    shown = spans(numbers)
    return f"round {shown}" if shown.isdecimal() else f"rounds {shown}"
