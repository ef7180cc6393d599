"""One view of a run for people: how far it is, how good the model is, and what every node does."""

import time
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from clients.kept.progress import Progress
from scripts.terminal.console import counted_blocks, quantity
from scripts.terminal.output import one_line
from server.run_folder.history import RunHistory
from server.run_folder.ledger import Account, ledger
from trfmoe_core.counts import counted

QUIET_S = 120.0
"""After so long without an event the view says since when nothing happened."""


def run_view(
    history: RunHistory,
    name: str,
    working: bool,
    progress: Mapping[str, Progress] = MappingProxyType({}),
    now: float | None = None,
) -> RenderableType:
    """Returns the view of a run.

    Args:
        history: From its journal.
        name: Its folder's name.
        working: Whether a process of this machine holds the folder's lock.
        progress: Node -> how far it is in the newest round, where that is known.
        now: Seconds since 1970; None: the clock.
    """
    lines = [Text(one_line(line)) for line in headlines(history, name, working, time.time() if now is None else now)]
    if history.unit == "step" or not history.nodes:
        return Group(*lines)
    notes = [Text(one_line(text), style="red") for text in history.little_text().values()]
    return Group(*lines, nodes_view(history, working, progress), *notes)


def headlines(history: RunHistory, name: str, working: bool, now: float) -> Iterator[str]:
    """Yields the lines above the nodes: progress, time left, model."""
    unit, done = history.unit, max(history.committed, default=0)
    total = history.num_rounds
    state = str(history.finished["outcome"]) if history.finished else "running" if working else "interrupted"
    if not history.started:
        yield f"{name}: not begun"
        return
    yield f"{name}: {unit} {done} of {total or '?'}, {state}"
    if history.finished is None:
        left = time_left(history)
        if left is not None:
            yield f"about {duration(left)} left at the pace of the last {unit}s"
        quiet = None if history.last_time is None else now - history.last_time
        if not working:
            since = "" if quiet is None else f", and nothing was written for {duration(quiet)}"
            yield f"no process of this machine works on this folder{since}; a copy of a folder looks the same"
        elif quiet is not None and quiet > QUIET_S:
            yield f"its process is alive, and has written nothing for {duration(quiet)}"
    if history.evaluated:
        number = max(history.evaluated)
        first = history.evaluated[min(history.evaluated)]["bits_per_byte"]
        last = history.evaluated[number]["bits_per_byte"]
        if last is not None and first is not None:
            yield f"held-out text: {last:.4f} bits per byte after {unit} {number} ({first:.4f} at the start)"
    if done and history.committed[done].get("tokens_per_s"):
        yield f"{quantity(history.committed[done]['tokens_per_s'])} tokens/s in {unit} {done}"


def time_left(history: RunHistory) -> float | None:
    """Returns the seconds that the missing rounds take at the mean pace of the last three; None if unknown."""
    seconds = [event.get("seconds") for _, event in sorted(history.committed.items())][-3:]
    known = [float(one) for one in seconds if one]
    if not known or not history.num_rounds or history.unit == "step":
        return None
    return (history.num_rounds - max(history.committed)) * sum(known) / len(known)


def duration(seconds: float) -> str:
    """Returns, for instance, `2 h 5 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def node_states(
    history: RunHistory, working: bool, progress: Mapping[str, Progress] = MappingProxyType({})
) -> dict[str, str]:
    """Returns what every node does in the newest round, or did when the run ended, in words."""
    number = max(history.epochs, default=0)
    replies = history.replies.get(number, {})
    asked = {name for names in history.holders(number).values() for name in names}
    outvoted: dict[str, list[str]] = {}
    for verdict in history.verdicts.get(number, []):
        for name in verdict.get("outvoted", []):
            outvoted.setdefault(name, []).append(verdict["block"])
    states = {}
    for name in sorted({*history.nodes, *asked}):
        reply = replies.get(name)
        if name in outvoted:
            states[name] = f"outvoted on {counted_blocks(outvoted[name])}"
        elif reply is not None:
            states[name] = "answered" if reply["status"] == "accepted" else f"{reply['status']}: {reply['reason']}"
        elif number in history.committed and name in asked:
            states[name] = "silent"
        elif name in asked and history.finished:
            states[name] = "no answer before the run ended"
        elif name in asked and not working:
            states[name] = "no answer before the run was interrupted"
        elif name in asked:
            states[name] = progress[name].text if name in progress else "training"
        elif not number:
            states[name] = "joined"
        else:
            states[name] = "waiting for blocks" if working and not history.finished else "had no blocks"
    return states


def nodes_view(history: RunHistory, working: bool, progress: Mapping[str, Progress] = MappingProxyType({})) -> Table:
    """Returns a table with a line for every node: its state in the newest round, and its part in the whole run."""
    number = max(history.epochs, default=0)
    accounts = ledger(history)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in (
        "node",
        f"round {number}",
        "last loss",
        "bits per byte",
        "tokens trained",
        "votes counted",
        "outvoted",
    ):
        table.add_column(title, justify="left" if title in ("node", f"round {number}") else "right")
    outvoted = history.outvoted_rounds()
    for name, state in node_states(history, working, progress).items():
        losses = [
            r[name]["loss"] for _, r in sorted(history.replies.items()) if r.get(name, {}).get("loss") is not None
        ]
        measured = history.evaluated[max(history.evaluated)] if history.evaluated else {}
        bits = measured.get("nodes", {}).get(name, {}).get("bits_per_byte")
        account = accounts.get(name, Account())
        table.add_row(
            Text(one_line(name)),
            Text(one_line(state), style="red" if state.startswith("outvoted") else ""),
            f"{losses[-1]:.4f}" if losses else "",
            f"{bits:.4f}" if bits is not None else "",
            quantity(account.tokens) if account.tokens else "",
            f"{100 * account.share:.0f} %" if account.planned else "",
            counted(len(outvoted[name]), "round") if name in outvoted else "never",
        )
    return table
