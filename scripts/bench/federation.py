"""`trfmoe bench federation`: memory of every process and use of every second in a federation of real processes.

SuperLink, executor, server app and three SuperNodes with TLS and keys run on this machine, with a model of the given
size and a few steps a round. What a round costs besides training does not depend on the number of steps. So the share
of training in a longer round is 1 - (seconds besides training) / (seconds of the round).

Processor time is shown besides the seconds by the clock: it changes less with what else the machine does.

All processes share this machine and wait for each other's imports, so with few cores the seconds are more than those of
a federation of many machines.
"""

import json
import os
import random
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from scripts.bench.measure import Highest
from scripts.deploy.deployment import Deployment
from scripts.experiments.transports import TRANSPORTS
from scripts.terminal.output import Output
from server.report.round_seconds import TRAIN, mean_round_seconds, round_seconds
from server.run_folder.folder import RunFolder
from server.run_folder.journal import read_events
from trfmoe_core.blocks import BlockLayout
from trfmoe_core.config import Recipe
from trfmoe_core.data.tokenizers import load_tokenizer
from trfmoe_core.errors import ConfigError, RunError
from trfmoe_core.model.transformer import parameter_shapes

NODES = ("first", "second", "third")
ROUND_S = (300.0, 60.0)
GOAL = 0.95
"""Share of a round of 300 seconds that is training."""

WIDTH, EXPERTS = 512, 8
WORDS = ("a", "of", "river", "stone", "light", "bread", "water", "hill", "night", "over", "under", "went", "came")
ROLES = {
    "flwr-serverapp": "server app",
    "flower-superlink": "superlink",
    "flower-superexec": "executor",
    "scripts.deploy.prompt_supernode": "supernode",
    "flwr-clientapp": "client app",
    "scripts.deploy.node_clientapp": "client app",
}
"""Program -> what it is; of several the largest counts."""


def recipe_of(megabytes: float, transport: str, rounds: int, steps: int, root: Path) -> Recipe:
    """Returns a recipe, and writes the texts of its nodes.

    Args:
        megabytes: Rough size of the model in float32.
        transport: Name in TRANSPORTS.
        rounds: Rounds of the run.
        steps: Local steps of a round.
        root: Folder of everything that the run writes and reads.
    """
    nodes = []
    for number, name in enumerate(NODES):
        draw = random.Random(number)
        # Short documents: an evaluation takes whole ones, and a long one would be several times `evaluation_tokens`.
        text = root / "texts" / f"{name}.jsonl"
        text.parent.mkdir(exist_ok=True)
        lines = (json.dumps({"text": " ".join(draw.choices(WORDS, k=80))}) for _ in range(600))
        text.write_text("\n".join(lines), encoding="utf-8")
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


class Observer:
    """Looks at the processes of a deployment from outside."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._spent: dict[psutil.Process, tuple[str, float]] = {}
        self._looks: list[tuple[float, dict[str, float]]] = []

    def resident_bytes(self) -> dict[str, int]:
        """Returns the resident memory of the largest process of each role, and notes the processor time of all."""
        found: dict[str, int] = {}
        for process in self._deployment.processes():
            with suppress(psutil.Error):
                names = [Path(part).name for part in process.cmdline()[:4]]
                for role in {ROLES[name] for name in names if name in ROLES}:
                    found[role] = max(found.get(role, 0), process.memory_info().rss)
                    times = process.cpu_times()
                    self._spent[process] = (role, times.user + times.system)
        total: dict[str, float] = {}
        for role, seconds in self._spent.values():  # of processes that have ended, too
            total[role] = total.get(role, 0.0) + seconds
        self._looks.append((time.time(), total))
        return found

    def processor_seconds(self, begin: float, end: float) -> dict[str, float]:
        """Returns the user and system time of all processes of each role between two times, by the last looks."""
        first, last = (
            max((look for look in self._looks if look[0] <= until), key=lambda look: look[0], default=(0.0, {}))[1]
            for until in (begin, end)
        )
        return {role: seconds - first.get(role, 0.0) for role, seconds in last.items()}


def measure(megabytes: float, transport: str, rounds: int, steps: int, output: Output) -> dict[str, Any]:
    """Returns what one run shows.

    Args:
        megabytes: Rough size of the model in float32.
        transport: Name in TRANSPORTS.
        rounds: Rounds of the run.
        steps: Local steps of a round.
        output: Where the deployment writes.

    Raises:
        RunError: the deployment or the run does not start, or does not come to its end.
    """
    with tempfile.TemporaryDirectory(prefix="trfmoe-") as temporary:
        recipe = recipe_of(megabytes, transport, rounds, steps, Path(temporary))
        folder = RunFolder.create(Path(recipe.run_root), recipe)
        with Deployment(folder, "process", output.line) as deployment:
            deployment.start()
            deployment.submit()
            observer = Observer(deployment)
            with Highest(observer.resident_bytes, every_s=0.3) as highest:
                while not deployment.finished():
                    time.sleep(0.5)
            status = deployment.status()
        events = read_events(folder.events_path)
    rounds_s = round_seconds(events)
    if status[0] != "finished:completed" or not rounds_s:
        raise RunError(
            f"the run did not come to its end ({status[0]} {status[1]}), so there is nothing to tell; run again"
        )
    commits = [event["time"] for event in events if event["event"] == "round_committed"]
    spent = observer.processor_seconds(commits[0], commits[-1])
    owners = mean_round_seconds(events)
    besides = sum(seconds for owner, seconds in owners.items() if owner != TRAIN)
    replies = [event for event in events if event["event"] == "node_reply" and event.get("bytes_down")]
    layout = BlockLayout.of(parameter_shapes(recipe.model, load_tokenizer("byte").padded_vocab_size))
    return {
        "transport": transport,
        "model_mb": 4 * sum(spec.numel for spec in layout.specs.values()) / 1e6,
        "status": status[0],
        "rounds": len(rounds_s) + 1,
        "load_average": os.getloadavg()[1],
        "peak_rss_mb": {role: round(size / 1e6, 1) for role, size in sorted(highest.values.items())},
        "mb_down": [round(event["bytes_down"] / 1e6, 2) for event in replies if event["node"] == NODES[0]],
        "mb_up": [round(event["bytes_up"] / 1e6, 2) for event in replies if event["node"] == NODES[0]],
        "seconds_besides_training": besides,
        "owners": owners,
        "rounds_s": rounds_s,
        "processor_s": {role: seconds / (len(commits) - 1) for role, seconds in sorted(spent.items())},
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
    spent = result["processor_s"]
    roles = ", ".join(f"{role} {seconds:.1f}" for role, seconds in spent.items())
    output.line(f"  processor seconds of a round, training included: {sum(spent.values()):.1f} ({roles})")
    for length in ROUND_S:
        output.line(
            f"  share of a round of {length:.0f} s that is training: {result[f'train_share_{length:.0f}_s']:.3f}"
        )


def main(megabytes: str, transport: str, rounds: int, steps: int, as_json: bool) -> None:
    """Measures one size after the other.

    Args:
        megabytes: Sizes of the model in float32, with commas.
        transport: Names of TRANSPORTS, with commas.
        rounds: Rounds of a run.
        steps: Local steps of a round.
        as_json: Whether to print one JSON object as the last line.

    Raises:
        ConfigError: There is no such transport, or a size is no number.
    """
    output = Output(as_json)
    results = []
    for way in transport.split(","):
        if way not in TRANSPORTS:
            raise ConfigError(f"--transport: {way!r} is none of {', '.join(TRANSPORTS)}")
        for size in megabytes.split(","):
            if not size.strip().isdigit():
                raise ConfigError(f"--megabytes {megabytes}: give whole numbers, such as 200,500")
            results.append(measure(int(size), way, rounds, steps, output))
            show(results[-1], output)
    share = results[0]["train_share_300_s"]
    output.line(f"\nshare of 300 s, first case: {share:.3f}, goal {GOAL}: {share >= GOAL}")
    key = {"train_share_300_s": share, "train_share_60_s": results[0]["train_share_60_s"]}
    output.result({"outcome": "completed", **key, "reached": share >= GOAL, "cases": results, "exit_code": 0})
