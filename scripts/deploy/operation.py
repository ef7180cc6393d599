"""What an operator asks of a kit's SuperLink: which runs there are, and what its nodes are doing."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from scripts.deploy.allowed_code import SHOWN_DIGITS
from scripts.deploy.kit.kit import Coordinator, coordinator_folder, read_coordinator
from scripts.deploy.lifecycle.members import open_control
from scripts.processes.control import Control, NodeState, RunState
from server.run_folder.checkpoints import checkpoint_state
from server.run_folder.folder import RunFolder
from server.run_folder.history import RunHistory
from server.run_folder.journal import read_events
from trfmoe_core.errors import ConfigError

_STANDINGS = {
    "silent": "sent no usable answer",
    "alone": "stood alone in most of its votes",
    "convicted": "its updates did harm on the witness's text",
}
"""What a round showed of a node that got a strike (`strategies/membership/reputation.py`)."""


@dataclass(frozen=True, kw_only=True)
class Operation:
    """A coordinator's folder, and the control interface of its SuperLink."""

    kit: Path
    coordinator: Coordinator
    control: Control

    @classmethod
    def of(cls, directory: Path) -> Self:
        """Returns the operation of a kit's or a coordinator's folder.

        Raises:
            ConfigError: It is no such folder.
        """
        kit = coordinator_folder(directory).absolute()
        return cls(kit=kit, coordinator=read_coordinator(kit), control=open_control(kit))

    def active_runs(self) -> dict[int, RunState]:
        """Returns the runs that have not ended, by Flower's id, the newest last.

        Raises:
            RunError: The SuperLink does not answer.
        """
        return {run_id: state for run_id, state in self.control.runs().items() if not state.finished}

    def active_run(self) -> tuple[int, RunFolder]:
        """Returns Flower's id and the folder of the newest run that has not ended.

        Raises:
            ConfigError: There is none.
            RunError: The SuperLink does not answer.
        """
        active = self.active_runs()
        if not active:
            raise ConfigError(
                f"{self.kit}: no run is going on; `trfmoe deploy status {self.kit}` shows the earlier ones"
            )
        with_folder = [(run_id, state.run_dir) for run_id, state in active.items() if state.run_dir is not None]
        if not with_folder:
            raise ConfigError(
                f"{self.kit}: what is going on has no run folder, such as the roll call of an upgrade; wait for its end"
            )
        run_id, run_dir = with_folder[-1]
        if run_id in self.active_without_folder():
            raise ConfigError(
                f"{run_dir}: a run is going on there, and the folder is gone; `trfmoe deploy stop {self.kit} --now` "
                "ends it"
            )
        return run_id, RunFolder.open(run_dir)

    def active_without_folder(self) -> list[int]:
        """Returns Flower's ids of the runs that are going on in a folder that is gone, as after it was moved.

        Raises:
            RunError: The SuperLink does not answer.
        """
        active = self.active_runs().items()
        return [number for number, run in active if run.run_dir and not (run.run_dir / "recipe.yaml").is_file()]


@dataclass(frozen=True, kw_only=True)
class NodeRow:
    """What is known of a node.

    Attributes:
        name: The node's.
        zone: The registered one; None if there is none.
        online: Whether Flower sees it.
        since: When it came or went, ISO 8601; empty if it was never there.
        doing: Its work in the newest run.
        release: Its code, by the hash that its owner allowed, and its torch, as it says.
        loss: Its last training loss; None if there is none.
        strikes: Rounds in a row in which it was not good.
        strikes_text: The same with the reason and what follows, for people; empty if there is nothing to say.
        refused: Why it is refused; empty if it is not.
    """

    name: str
    zone: str | None
    online: bool
    since: str
    doing: str
    release: str
    loss: float | None
    strikes: int
    strikes_text: str
    refused: str


def node_rows(
    operation: Operation,
    states: dict[str, NodeState],
    folder: RunFolder | None,
    app: str = "",
    *,
    active: bool = True,
) -> list[NodeRow]:
    """Returns one row for each of a kit's nodes.

    Args:
        operation: The kit.
        states: The nodes as the SuperLink knows them.
        folder: The newest run, if there is one.
        app: Hash of the app that it runs.
        active: Whether it is going on.

    Raises:
        RunFolderError: The run's journal cannot be read.
    """
    history = RunHistory(read_events(folder.events_path)) if folder else RunHistory()
    records = _strike_records(folder, history)
    rows = []
    for node in operation.coordinator.nodes:
        state = states.get(node.registered, NodeState("not registered"))
        reply = _last_reply(history, node.name)
        joined = history.nodes.get(node.name, {})
        rows.append(
            NodeRow(
                name=node.name,
                zone=node.zone,
                online=state.status == "online",
                since=state.since,
                doing=_doing(history, node.name, reply, active),
                release=_release(joined, app),
                loss=reply.get("loss"),
                strikes=int(records.get(node.name, {}).get("strikes", 0)),
                strikes_text=strikes_text(
                    records.get(node.name, {}), folder.recipe.reputation.strikes if folder else 0
                ),
                refused=history.refused.get(node.name, "") if node.name not in history.nodes else "",
            )
        )
    return rows


def strikes_text(record: Mapping[str, Any], limit: int) -> str:
    """Returns what a node's strikes are for and what follows from them; an empty text if there is nothing to say.

    Args:
        record: Its `StrikeRecord` as a checkpoint keeps it.
        limit: Strikes at which it loses its experts (`reputation.strikes`).
    """
    parts = []
    if strikes := int(record.get("strikes", 0)):
        follows = "one good round takes them away" if strikes < limit else "others take its experts if there are any"
        parts.append(f"strike {strikes} of {limit}: {_STANDINGS.get(str(record.get('last')), 'not good')}; {follows}")
    if record.get("out_until") is not None and not strikes:
        parts.append(f"sat out, or sits out, until round {record['out_until']}")
    return "; ".join(parts)


def run_line(history: RunHistory, active: bool = True) -> str:
    """Returns where a run stands: its round, the nodes that were outvoted last, and the time that is left.

    Args:
        history: Its journal.
        active: Whether it is going on. A run that is not, and has no end in its journal, was stopped at once or lost.
    """
    done = max(history.committed, default=0)
    parts = [f"round {done} of {history.num_rounds}"]
    if history.finished is not None:
        parts.append(str(history.finished["outcome"]))
    elif active and done and done < history.num_rounds:
        newest = [history.committed[number]["seconds"] for number in sorted(history.committed)[-5:]]
        left = (history.num_rounds - done) * sum(newest) / len(newest)
        parts.append(f"about {duration(left)} left")
    if done and (outvoted := history.outvoted(done)):
        parts.append("outvoted: " + ", ".join(f"{name}({count})" for name, count in sorted(outvoted.items())))
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Returns a time in its two largest units, such as `3 h 20 min`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _release(joined: dict[str, Any], app: str) -> str:
    if not joined:
        return ""
    return f"app {app[:SHOWN_DIGITS] or 'unknown'}, torch {joined['versions'].get('torch', 'unknown')}"


def _last_reply(history: RunHistory, name: str) -> dict[str, Any]:
    for number in sorted(history.replies, reverse=True):
        if (reply := history.replies[number].get(name)) and reply.get("status") == "accepted":
            return reply
    return {}


def _doing(history: RunHistory, name: str, reply: dict[str, Any], active: bool) -> str:
    if not history.started:
        return ""
    if name not in history.nodes:
        return "has not joined"
    if history.finished is not None or not active:
        return f"round {reply['round']} was its last" if reply else "took part in no round"
    now = max(history.replies, default=0)
    answered = history.replies.get(now, {}).get(name)
    if answered is None:
        return f"works on round {now}" if now and now not in history.committed else "waits"
    return f"round {now}: {answered['status']}"


def _strike_records(folder: RunFolder | None, history: RunHistory) -> dict[str, dict[str, Any]]:
    """Returns what the newest committed round says of each node's strikes."""
    if folder is None or not history.committed:
        return {}
    state = checkpoint_state(folder.checkpoints_path, max(history.committed))
    found = state.get("seating") or {}
    return dict(found.get("reputation", {}))
