"""`trfmoe bench federation`: memory of every process, and the owner of every second, of a federation of real processes.

SuperLink, executor, server app and three SuperNodes with TLS and keys on this machine, a model of the given size, a
few steps a round. What a round costs besides training does not depend on how long the training is, so the share of a
longer round follows from it: 1 - (seconds besides training) / (seconds of the round).

All processes share this machine. Nodes of their own would not wait for each other's imports, so on few cores the
seconds are more than a real federation's.
"""

import argparse
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from statistics import fmean
from typing import Any

import psutil

from scripts.deployment import Deployment
from scripts.output import Output
from server.events import Event, read_events
from server.run_folder import RunFolder
from trfmoe_core.blocks import BlockLayout
from trfmoe_core.config import Recipe
from trfmoe_core.data.tokenizers import load_tokenizer
from trfmoe_core.errors import RunError, TRFMoEError
from trfmoe_core.model.transformer import parameter_shapes

NODES = ("first", "second", "third")
ROUND_S = (300.0, 60.0)
GOAL = 0.95
"""Share of a round of 300 seconds that is training."""

WIDTH, EXPERTS = 512, 8
TRANSPORTS = {
    "float32": {},
    "int8": {"broadcast": "bfloat16", "difference": "int8", "updates": "int8"},
}
WORDS = (
    "the",
    "a",
    "of",
    "river",
    "stone",
    "light",
    "bread",
    "water",
    "hill",
    "night",
    "over",
    "under",
    "went",
    "came",
)
ROLES = {
    "flwr-serverapp": "server app",
    "flower-superlink": "superlink",
    "flower-superexec": "executor",
    "flower-supernode": "supernode",
    "flwr-clientapp": "client app",
    "scripts.node_clientapp": "client app",
}
"""Program -> what it is; of several the largest counts."""


def recipe_of(megabytes: float, transport: str, rounds: int, steps: int, root: Path) -> Recipe:
    """Returns a recipe whose model has about this size in float32, with its nodes' texts written."""
    nodes = []
    for number, name in enumerate(NODES):
        draw = random.Random(number)
        text = root / "texts" / f"{name}.txt"
        text.parent.mkdir(exist_ok=True)
        text.write_text("\n\n".join(" ".join(draw.choices(WORDS, k=80)) for _ in range(600)), encoding="utf-8")
        folders = {"state_dir": str(root / "state"), "cache_dir": str(root / "cache")}
        nodes.append({"name": name, "zone": f"zone-{name}", "data": [str(text)], **folders})
    layer = WIDTH * WIDTH * (3 * EXPERTS + 4)
    model = {
        "layers": max(1, round(megabytes * 1e6 / 4 / layer)),
        "width": WIDTH,
        "heads": 8,
        "experts": EXPERTS,
        "expert_width": WIDTH,
        "context": 64,
    }
    return Recipe.model_validate(
        {
            "name": "bench",
            "run_root": str(root / "runs"),
            "model": model,
            "data": {"evaluation_tokens": 1024},
            "training": {"batch_size": 8, "device": "cpu", "precision": "float32", "warmup_steps": 0},
            "rounds": {"num_rounds": rounds, "local_steps": steps},
            "transport": TRANSPORTS[transport],
            "nodes": nodes,
        }
    )


class Watch(threading.Thread):
    """Context manager that keeps, of each kind of process, the largest resident memory and the processor time.

    Attributes:
        peak: Kind -> bytes of its largest process.
        spent: (time, kind -> processor seconds of all its processes until then), in order.
    """

    def __init__(self, deployment: Deployment) -> None:
        super().__init__(daemon=True)
        self.peak: dict[str, int] = {}
        self.spent: list[tuple[float, dict[str, float]]] = []
        self._processor_s: dict[tuple[str, int], float] = {}
        self._deployment = deployment
        self._stop_asked = threading.Event()

    def __enter__(self) -> "Watch":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_asked.set()
        self.join()

    def run(self) -> None:
        """Looks a few times a second."""
        while not self._stop_asked.wait(0.3):
            for service in list(self._deployment.services.values()):
                with suppress(psutil.Error):
                    parent = psutil.Process(service.pid)
                    for process in (parent, *parent.children(recursive=True)):
                        self._look(process)
            kinds: dict[str, float] = {}
            for (kind, _), seconds in self._processor_s.items():
                kinds[kind] = kinds.get(kind, 0.0) + seconds
            self.spent.append((time.time(), kinds))

    def between(self, begin: float, end: float) -> dict[str, float]:
        """Returns the processor seconds of each kind between two times."""
        before, after = ([kinds for moment, kinds in self.spent if moment <= when] for when in (begin, end))
        first, last = (before or [{}])[-1], (after or [{}])[-1]
        return {kind: seconds - first.get(kind, 0.0) for kind, seconds in sorted(last.items())}

    def _look(self, process: psutil.Process) -> None:
        with suppress(psutil.Error):
            role = next((ROLES[Path(part).name] for part in process.cmdline()[:4] if Path(part).name in ROLES), None)
            if role is not None:
                self.peak[role] = max(self.peak.get(role, 0), process.memory_info().rss)
                times = process.cpu_times()
                self._processor_s[role, process.pid] = times.user + times.system


def seconds_of(events: list[Event]) -> list[dict[str, float]]:
    """Returns, for every round but the first, its seconds by owner along the way of its last reply."""
    found = []
    by_round: dict[int, list[Event]] = {}
    for event in events:
        if "round" in event:
            by_round.setdefault(event["round"], []).append(event)
    committed = {event["round"]: event["time"] for event in events if event["event"] == "round_committed"}
    for number in sorted(committed)[1:]:
        of = by_round[number]
        planned = next(event["time"] for event in of if event["event"] == "round_planned")
        replies = [event for event in of if event["event"] == "node_reply" and event["status"] == "accepted"]
        replies = [event for event in replies if event["time"] < committed[number]]
        last = max(replies, key=lambda event: float(event["time"]))
        verdicts = next(event["time"] for event in of if event["event"] == "verdicts")
        spent: Mapping[str, float] = last["spent"]
        found.append(
            {
                "coordinator: encode": planned - committed[number - 1],
                **{f"node: {owner}": seconds for owner, seconds in spent.items()},
                "Flower and network": last["time"] - planned - sum(spent.values()),
                "coordinator: vote": verdicts - last["time"],
                "coordinator: commit": committed[number] - verdicts,
            }
        )
    return found


def measure(megabytes: float, transport: str, rounds: int, steps: int, output: Output) -> dict[str, Any]:
    """Returns what one run shows.

    Raises:
        RunError: the deployment or the run does not start, or does not come to its end.
    """
    with tempfile.TemporaryDirectory(prefix="trfmoe-") as temporary:
        recipe = recipe_of(megabytes, transport, rounds, steps, Path(temporary))
        folder = RunFolder.create(Path(recipe.run_root), recipe)
        with Deployment(folder, "process", output.line) as deployment:
            deployment.start()
            deployment.submit()
            with Watch(deployment) as watch:
                while not deployment.finished():
                    time.sleep(0.5)
            status = deployment.status()
        events = read_events(folder.events_path)
    rounds_s = seconds_of(events)
    if status[0] != "finished:completed" or not rounds_s:
        raise RunError(
            f"the run did not come to its end ({status[0]} {status[1]}), so there is nothing to tell; run again"
        )
    owners = {owner: fmean(row.get(owner, 0.0) for row in rounds_s) for owner in rounds_s[0]}
    besides = sum(seconds for owner, seconds in owners.items() if owner != "node: train")
    replies = [event for event in events if event["event"] == "node_reply" and event.get("bytes_down")]
    commits = [event["time"] for event in events if event["event"] == "round_committed"]
    processor_s = watch.between(commits[0], commits[-1])
    layout = BlockLayout.of(parameter_shapes(recipe.model, load_tokenizer("byte").padded_vocab_size))
    return {
        "transport": transport,
        "model_mb": 4 * sum(spec.numel for spec in layout.specs.values()) / 1e6,
        "status": status[0],
        "rounds": len(rounds_s) + 1,
        "load_average": os.getloadavg()[1],
        "peak_rss_mb": {role: round(size / 1e6, 1) for role, size in sorted(watch.peak.items())},
        "mb_down": [round(event["bytes_down"] / 1e6, 2) for event in replies if event["node"] == NODES[0]],
        "mb_up": [round(event["bytes_up"] / 1e6, 2) for event in replies if event["node"] == NODES[0]],
        "seconds_besides_training": besides,
        "processor_s": {kind: seconds / (len(commits) - 1) for kind, seconds in processor_s.items()},
        "owners": owners,
        "rounds_s": rounds_s,
        **{f"train_share_{length:.0f}_s": max(0.0, 1 - besides / length) for length in ROUND_S},
    }


def show(result: dict[str, Any], output: Output) -> None:
    """Prints a result for people."""
    output.line(f"\nmodel {result['model_mb']:.0f} MB, {result['transport']}, load {result['load_average']:.1f}")
    output.line(f"  status {result['status']}, MB down {result['mb_down']}, up {result['mb_up']} a node by round")
    memory = ", ".join(f"{role} {size:.0f}" for role, size in result["peak_rss_mb"].items())
    output.line(f"  peak resident MB of a process: {memory}")
    output.line("  seconds of a round, mean without the first:")
    for owner, seconds in sorted(result["owners"].items(), key=lambda item: -item[1]):
        output.line(f"    {owner:<22}{seconds:>8.2f}")
    output.line(f"    besides training      {result['seconds_besides_training']:>8.2f}")
    for length in ROUND_S:
        output.line(
            f"  share of a round of {length:.0f} s that is training: {result[f'train_share_{length:.0f}_s']:.3f}"
        )


def main() -> None:
    """Measures one size after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", default="200", help="sizes of the model in float32")
    parser.add_argument("--transport", default="int8", help="of " + ", ".join(TRANSPORTS))
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    output = Output(options.json)
    results = []
    for transport in options.transport.split(","):
        for size in options.megabytes.split(","):
            try:
                results.append(measure(float(size), transport, options.rounds, options.steps, output))
            except TRFMoEError as error:
                sys.stderr.write(f"error: {error}\n")
                sys.exit(error.exit_code)
            show(results[-1], output)
    goal = results[0]["train_share_300_s"] >= GOAL
    output.line(f"\nshare of 300 s, first case: {results[0]['train_share_300_s']:.3f}, goal {GOAL}: {goal}")
    key = {"train_share_300_s": results[0]["train_share_300_s"], "train_share_60_s": results[0]["train_share_60_s"]}
    output.result({"outcome": "completed", **key, "reached": goal, "cases": results, "exit_code": 0})


if __name__ == "__main__":
    main()
