"""The memory and bytes that a plan names, compared with simulations on Flower's engine."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from scripts.bench.measure import Highest
from scripts.planning.forecast import forecast
from server.run_folder.journal import read_events
from tests.conftest import words
from tests.federation import of_kind
from tests.places import ROOT
from tests.scripts.planning.test_traffic import plan_of
from trfmoe_core.config import load_recipe

LIMIT = 0.15
MODEL = {"layers": 4, "width": 384, "heads": 6, "experts": 8, "top_k": 2, "expert_width": 768, "context": 64}
SHAPES: dict[str, tuple[int, dict[str, Any]]] = {
    # most of it: weights, gradients, moments and messages in float32
    "weights": (3, {"model": MODEL}),
    # most of it: activations
    "activations": (
        3,
        {
            "model": {**MODEL, "width": 192, "experts": 4, "expert_width": 256, "context": 256},
            "training": {"batch_size": 16},
        },
    ),
    # most of it is never trained
    "low-rank": (
        3,
        {
            "model": {**MODEL, "width": 768, "expert_width": 3072, "expert": "low_rank"},
            "training": {"freeze": "base"},
        },
    ),
    # a part of the experts on each node, and few bytes on the way
    "absent": (
        7,
        {
            "model": {**MODEL, "layers": 2, "experts": 24},
            "experts": {"unheld": "absent"},
            "transport": {"broadcast": "bfloat16", "difference": "int8", "updates": "int8"},
        },
    ),
}


def coordinators_own() -> dict[str, int]:
    """Returns the coordinator's memory that no file backs; Flower's simulation runs it in its own process."""
    found = 0
    for process in psutil.Process().children(recursive=True):
        try:
            if any(word.endswith("flwr-simulation") for word in process.cmdline()[:4]):
                memory = process.memory_info()
                found = max(found, memory.rss - memory.shared)
        except psutil.Error:
            continue  # it has just ended
    return {"own": found}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("shape", SHAPES)
def test_memory_within_fifteen_percent(shape: str, tmp_path: Path) -> None:
    nodes, changes = SHAPES[shape]
    training = {"batch_size": 8, "device": "cpu", "precision": "float32", "warmup_steps": 1}
    raw = {
        "name": shape,
        "run_root": str(tmp_path / "runs"),
        "data": {"evaluation_tokens": 1024, "piece_bytes": 512},
        "rounds": {"num_rounds": 3, "local_steps": 2, "nodes_deadline_s": 300},
        "nodes": [],
        **changes,
        "training": {**training, **changes.get("training", {})},
    }
    for number in range(nodes):
        (tmp_path / f"n{number}.txt").write_text(words(number, 20_000))
        raw["nodes"].append({"name": f"n{number}", "data": [str(tmp_path / f"n{number}.txt")]})
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(raw))
    planned = forecast(plan_of(load_recipe(tmp_path / "r.yaml")), None, None, None)
    command = [sys.executable, "-m", "scripts", "simulate", str(tmp_path / "r.yaml"), "--json"]
    environment = {**os.environ, "TRFMOE_CACHE": str(tmp_path / "cache")}
    with Highest(coordinators_own, every_s=0.3) as highest:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    events = read_events(Path(json.loads(done.stdout.splitlines()[-1])["run_dir"]) / "events.jsonl")
    # A process keeps its peak, and its second round also has a state to go on from.
    node = max(event["peak_memory_bytes"] for event in of_kind(events, "node_reply"))
    assert planned["memory_node_bytes"] == pytest.approx(node, rel=LIMIT)
    assert planned["memory_coordinator_bytes"] == pytest.approx(highest.values["own"], rel=LIMIT)
    last = of_kind(events, "round_committed")[-1]
    assert planned["traffic"]["up"] == pytest.approx(last["bytes_up"], rel=0.02)
    assert planned["traffic"]["down"] == pytest.approx(last["bytes_down"], rel=0.02)
