"""How far a node is in the training of a round: a small file in its folder of the run, which stays on the node.

A coordinator on the same machine, as in a simulation, can show it. Flower has no channel from a node to the coordinator
while the node works, so of a node elsewhere only its owner sees it (`trfmoe node status`).
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from trfmoe_core.training.trainer import StepMetrics

PROGRESS_FILE = "progress.json"
EVERY_S = 1.0


@dataclass(frozen=True)
class Progress:
    """The training of a round as far as it is known.

    Attributes:
        round: The round.
        step: Steps made.
        steps: Steps of the round.
        time: When it was noted, in seconds since 1970.
    """

    round: int
    step: int
    steps: int
    time: float

    @property
    def text(self) -> str:
        """The same in words."""
        return f"training step {self.step} of {self.steps}"


def progress_writer(folder: Path, number: int, steps: int, before: int) -> Callable[[StepMetrics], None]:
    """Returns what notes the training of a round, to be called after every step.

    Args:
        folder: The node's folder for this run.
        number: The round.
        steps: Steps of the round.
        before: Steps of the run before this round.
    """
    path, partial = folder / PROGRESS_FILE, folder / f"{PROGRESS_FILE}.partial"
    noted_s = -EVERY_S

    def note(metrics: StepMetrics) -> None:
        nonlocal noted_s
        step = metrics.step - before
        if step < steps and time.monotonic() - noted_s < EVERY_S:
            return
        noted_s = time.monotonic()
        found = Progress(number, step, steps, round(time.time(), 3))
        # Nobody needs it after a crash, so it is not synced; a full disk ends the round where its state is kept.
        try:
            partial.write_text(json.dumps(asdict(found)), encoding="utf-8")
            partial.replace(path)
        except OSError:
            return

    return note


def read_progress(folder: Path) -> Progress | None:
    """Returns what a node noted last of its training; None if there is nothing that can be read."""
    try:
        raw = json.loads((folder / PROGRESS_FILE).read_text(encoding="utf-8"))
        return Progress(int(raw["round"]), int(raw["step"]), int(raw["steps"]), float(raw["time"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
