"""The node's notes on its own rounds: what it measured, what left this machine, and what the votes made of it.

`trfmoe node status` reads them. They stay on the node.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clients.kept.notes import add_note, read_notes
from strategies.exchange.messages import TrainReply, TrainRequest
from trfmoe_core.wire import Parcel

ROUNDS_FILE = "rounds.jsonl"


def note_verdict(folder: Path, request: TrainRequest) -> None:
    """Notes what the votes of an earlier round made of this node's updates, if the request says so."""
    if request.verdict is not None:
        note = {"time": round(time.time(), 3), "verdict": request.verdict.model_dump(mode="json")}
        add_note(folder / ROUNDS_FILE, note, "a verdict")


def note_answer(folder: Path, run_name: str, request: TrainRequest, reply: TrainReply, updates: Parcel | None) -> None:
    """Notes an answer that is about to leave this machine.

    Args:
        folder: The node's folder for this run.
        run_name: The recipe's name.
        request: What was asked.
        reply: The numbers of the answer.
        updates: The updates that go with it; None: only the numbers.
    """
    note = {
        "time": round(time.time(), 3),
        "run_name": run_name,
        "round": request.round,
        "steps": request.steps,
        "loss": reply.training.loss if reply.training else None,
        "bits_per_byte": reply.evaluation.bits_per_byte if reply.evaluation else None,
        "blocks": len(request.held) if updates else 0,
        "bytes": len(reply.model_dump_json()) + (sum(len(data) for data in updates.buffers) if updates else 0),
    }
    add_note(folder / ROUNDS_FILE, note, "an answer")


@dataclass
class OwnRun:
    """A run as a node took part in it.

    Attributes:
        run_id: The coordinator's id of the run.
        name: The recipe's name.
        rounds: The rounds that this node trained in.
        last: When it answered last, in seconds since 1970.
        loss: Its last training loss; None if it has not trained.
        bits_per_byte: The last model on its own held-out text; None if it has not measured.
        outvoted: Round -> blocks on which it was outvoted, of the rounds where it was.
        accepted: The rounds in which all its updates counted.
        bytes: Bytes that left this machine in answers.
    """

    run_id: str
    name: str = ""
    rounds: set[int] = field(default_factory=set)
    last: float = 0.0
    loss: float | None = None
    bits_per_byte: float | None = None
    outvoted: dict[int, int] = field(default_factory=dict)
    accepted: set[int] = field(default_factory=set)
    bytes: int = 0

    def take(self, note: dict[str, Any]) -> None:
        """Takes in a note."""
        if verdict := note.get("verdict"):
            number, blocks = int(verdict["round"]), int(verdict["outvoted"])
            self.outvoted.pop(number, None)
            self.accepted.discard(number)
            if blocks:
                self.outvoted[number] = blocks
            elif verdict["accepted"]:
                self.accepted.add(number)
            return
        self.name, self.last = str(note["run_name"]), float(note["time"])
        self.bytes += int(note["bytes"])
        if note["steps"]:
            self.rounds.add(int(note["round"]))
            self.loss = note["loss"]
        self.bits_per_byte = note["bits_per_byte"]


def own_runs(base: Path, name: str) -> list[OwnRun]:
    """Returns the runs in which a node took part, the last one last.

    Args:
        base: The folder below which the node keeps a folder for every run.
        name: The node's name.

    Raises:
        OSError: Notes cannot be read.
    """
    runs = []
    for path in base.glob(f"*/{name}/{ROUNDS_FILE}"):
        run = OwnRun(path.parent.parent.name)
        for note in read_notes(path):
            try:
                run.take(note)
            except (KeyError, TypeError, ValueError):
                continue  # a line that a crash or somebody's editor has damaged
        runs.append(run)
    return sorted(runs, key=lambda run: run.last)
