"""Which owners allow the release that is installed on the coordinator, and which do not yet."""

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scripts.deploy.kit.kit import coordinator_folder, read_coordinator
from scripts.deploy.lifecycle.members import open_control
from scripts.processes.control import Control
from scripts.run.simulation import app_folder
from trfmoe_core.errors import RunError

DEADLINE_S = 240.0
Answer = Literal["allows", "refuses", "busy", "failed", "offline"]


@dataclass(frozen=True)
class Allowance:
    """Whether a node's owner allows a release.

    Attributes:
        node: The node's name.
        answer: What it answered, or why it did not: `busy` with other work, `offline`.
        reason: What it said besides; empty if nothing.
    """

    node: str
    answer: Answer
    reason: str = ""


def ask_allowances(directory: Path) -> list[Allowance]:
    """Asks every node of a kit whether the installed release may run there; no training takes place.

    Args:
        directory: The kit, or the coordinator's folder of it.

    Raises:
        RunError: The SuperLink does not answer, or the question cannot be asked.
    """
    folder = coordinator_folder(directory).absolute()
    coordinator = read_coordinator(folder)
    control = open_control(folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix="roll-call-") as scratch:
        path = Path(scratch) / "answers.json"
        told = _answers(control, path)
    found = []
    for node in coordinator.nodes:
        answer, reason = told.get(node.registered, ("offline", ""))
        found.append(Allowance(node.name, answer, reason))
    return found


def _answers(control: Control, path: Path) -> dict[str, tuple[Answer, str]]:
    run_id = control.start(app_folder(), {"roll-call": str(path)})
    end = time.monotonic() + DEADLINE_S
    while not path.is_file():
        state = control.runs().get(run_id)
        if state is not None and state.finished and not path.is_file():
            raise RunError(f"the nodes could not be asked: {state.status} {state.details}; see the executor's log")
        if time.monotonic() > end:
            control.stop(run_id)
            raise RunError(f"the nodes could not be asked within {DEADLINE_S:g} s; is the executor running?")
        time.sleep(0.3)
    return {name: (answer, reason) for name, (answer, reason) in json.loads(path.read_text("utf-8")).items()}
