"""`trfmoe bench scale`: what a round of many nodes costs the coordinator.

A whole run in one process: server app, strategy, messages, checks, spilled replies, votes, checkpoint and journal are
the real ones, and so is Flower's network grid with its serialisation. The nodes are made up (seeded updates of the
blocks that they hold), and a stand-in takes the place of the SuperLink. What nodes and stand-in take is counted apart
and is not part of the result. Every number of nodes is measured in a process of its own.

Seconds are the coordinator's processor seconds: those of the run's start (describing and placing) and of one round,
which is not the first. The peak of memory is that of the rounds; the report at the end reads the whole journal. The
exponent of a quantity is the slope between the two largest numbers of nodes on a log scale: 1 is linear.
"""

import logging
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from math import log
from pathlib import Path
from typing import Any

import psutil
import torch

from scripts.bench import child
from scripts.bench.made_up_nodes import MadeUpNodes
from scripts.bench.measure import Highest, peak_mb
from scripts.experiments.transports import TRANSPORTS
from scripts.experiments.wire_grid import WireGrid
from scripts.terminal.output import Output
from server.app import initial_blocks, run
from server.run_folder.folder import RunFolder
from server.run_folder.journal import Event
from server.run_folder.models import initial_model
from server.sinks.registry import SINKS
from strategies.exchange.in_flight import Clock
from trfmoe_core.config import Recipe
from trfmoe_core.data.tokenizers import load_tokenizer
from trfmoe_core.errors import RunError

NODES, QUICK_NODES = (10, 100, 300, 1000), (10, 100)
ROUNDS = 2
EXPERTS = 1024
SINK = "scale"
GOALS = {"seconds_1000": 60.0, "memory_ratio": 1.2, "exponent": 1.1}
"""Most that each may be."""

QUANTITIES = ("start_s", "round_s", "round_wall_s", "requests", "open_files", "peak_mb")


class TimedGrid(WireGrid):
    """Counts requests by kind, and the seconds that nodes and stand-in take."""

    def __init__(self, count: int, nodes: MadeUpNodes) -> None:
        super().__init__({number: f"node-{number:05d}" for number in range(1, count + 1)}, nodes.answer)
        self.requests: Counter[str] = Counter()
        self.others_s = self.others_wall_s = 0.0
        self._client = _Timed(self.superlink, self)


class _Timed:
    def __init__(self, superlink: Any, grid: TimedGrid) -> None:
        self._superlink, self._grid = superlink, grid

    def __getattr__(self, name: str) -> Callable[[Any], Any]:
        call = getattr(self._superlink, name)

        def timed(request: Any) -> Any:
            cpu, wall = time.thread_time(), time.monotonic()
            answer = call(request)
            self._grid.others_s += time.thread_time() - cpu
            self._grid.others_wall_s += time.monotonic() - wall
            self._grid.requests[name] += 1
            return answer

        return timed


class Marks:
    """A sink of the run's events that notes what was used at every commit."""

    def __init__(self, grid: TimedGrid) -> None:
        self._grid = grid
        self.at: dict[str, dict[str, Any]] = {}
        self.accepted: Counter[int] = Counter()
        self.peak_mb = 0
        """Of this process, up to the last commit."""

    def __call__(self, event: Event) -> None:
        """Takes an event."""
        if event["event"] in ("run_started", "placement", "round_committed"):
            self.at[f"{event['event']} {event.get('round', '')}".strip()] = {
                "cpu": time.process_time() - self._grid.others_s,
                "wall": time.monotonic() - self._grid.others_wall_s,
                "requests": self._grid.requests.copy(),
            }
            self.peak_mb = peak_mb()
        elif event["event"] == "node_reply" and event["status"] == "accepted":
            self.accepted[event["round"]] += 1

    def between(self, first: str, last: str) -> dict[str, Any]:
        """Returns what was used between two events."""
        one, other = self.at[first], self.at[last]
        return {key: other[key] - one[key] for key in one}


def measure(count: int, unheld: str, experts: int = EXPERTS) -> dict[str, Any]:
    """Returns what one number of nodes costs.

    Args:
        count: Nodes.
        unheld: What nodes do with experts that they do not hold; `absent` sends each node its own only.
        experts: Experts of the model.
    """
    torch.set_num_threads(1)
    logging.getLogger("flwr").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="trfmoe-scale-") as root:
        recipe = Recipe.model_validate(
            {
                "name": "scale",
                "run_root": root,
                "num_nodes": count,
                "model": {"layers": 1, "width": 16, "heads": 2, "experts": experts, "expert_width": 16, "context": 16},
                "experts": {"unheld": unheld},
                "rounds": {"num_rounds": ROUNDS, "local_steps": 1},
                "log": {"sinks": [SINK]},
                "transport": TRANSPORTS["int8"],
            }
        )
        folder = RunFolder.create(Path(root), recipe)
        layout, _ = initial_blocks(initial_model(folder, load_tokenizer("byte")))
        grid = TimedGrid(count, MadeUpNodes(recipe, layout))
        marks = Marks(grid)
        SINKS.register(SINK)(lambda log, path: marks)
        with Highest(lambda: {"open_files": psutil.Process().num_fds()}, every_s=0.05) as highest:
            run(grid, folder, Clock(sleep=lambda _: None))
        journal_mb = folder.events_path.stat().st_size / 1e6
    used = marks.between("round_committed 1", "round_committed 2")
    if marks.accepted[ROUNDS] != count:
        raise RunError(f"{marks.accepted[ROUNDS]} of {count} replies were accepted in round {ROUNDS}")
    return {
        "nodes": count,
        "experts": experts,
        "start_s": marks.between("run_started", "placement")["cpu"],
        "round_s": used["cpu"],
        "round_wall_s": used["wall"],
        "requests": sum(used["requests"].values()),
        "requests_by_kind": dict(used["requests"]),
        "open_files": highest.values["open_files"],
        "peak_mb": marks.peak_mb,
        "peak_with_report_mb": peak_mb(),
        "journal_mb": round(journal_mb, 1),
    }


def exponents(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Returns the slope of each quantity between the two largest numbers of nodes, on a log scale."""
    one, other = rows[-2], rows[-1]
    span = log(other["nodes"] / one["nodes"])
    return {key: log(max(other[key], 1e-9) / max(one[key], 1e-9)) / span for key in QUANTITIES}


def main(quick: bool, unheld: str, as_json: bool) -> None:
    """Measures and shows."""
    output = Output(as_json)
    output.line(" nodes  start s  round s    wall  requests  open files  peak MB  journal MB")
    rows = []
    for count in QUICK_NODES if quick else NODES:
        row = child.result_of("scripts.bench.scale:measure", count=count, unheld=unheld)
        rows.append(row)
        output.line(
            f"{row['nodes']:>6}{row['start_s']:>9.2f}{row['round_s']:>9.2f}{row['round_wall_s']:>8.2f}"
            f"{row['requests']:>10}{row['open_files']:>12}{row['peak_mb']:>9}{row['journal_mb']:>12}"
        )
    slopes = exponents(rows)
    output.line("\nexponents  " + ", ".join(f"{key} {value:.2f}" for key, value in slopes.items()))
    largest = rows[-1]
    result: dict[str, Any] = {
        f"seconds_{largest['nodes']}": largest["start_s"] + largest["round_s"],
        "memory_ratio": largest["peak_mb"] / rows[0]["peak_mb"],
        "exponent": slopes["round_s"],
    }
    reached = {key: result[key] <= goal for key, goal in GOALS.items() if key in result}
    for key, good in reached.items():
        output.line(f"{key} {result[key]:.2f}, at most {GOALS[key]:g}: {'reached' if good else 'MISSED'}")
    rest = {"unheld": unheld, "exponents": slopes, "rows": rows, "reached": reached}
    output.result({"outcome": "completed", **result, **rest, "exit_code": 0})
