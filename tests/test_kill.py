"""SIGKILL of the coordinator at random instants: nothing committed is lost, and the weights do not differ by a bit."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from server.run_folder.folder import RunFolder
from server.run_folder.journal import read_events
from server.run_folder.verify import verify_run
from tests.federation import of_kind, run_recipe
from tests.places import ROOT
from trfmoe_core.config import Recipe

CHILD = """
import sys
from pathlib import Path
from server.app import run
from server.run_folder.folder import RunFolder
from tests.federation import grid_of
folder = RunFolder.open(Path(sys.argv[1]))
print("ready", flush=True)
run(grid_of(folder), folder)
"""
KILLS = 20


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_twenty_kills_change_nothing(tiny_recipe: Callable[..., Recipe]) -> None:
    recipe = tiny_recipe(
        rounds={"num_rounds": 40, "local_steps": 1, "nodes_deadline_s": 1.0, "reply_deadline_s": 60.0},
        outer={"optimizer": "nesterov", "learning_rate": 0.7, "momentum": 0.5},
        transport={"broadcast": "bfloat16", "difference": "int8", "updates": "int8"},
    )
    whole, events = run_recipe(recipe)
    expected = of_kind(events, "run_finished")[0]["digest"]
    seconds = of_kind(events, "run_finished")[0]["time"] - of_kind(events, "run_started")[0]["time"]
    folder = RunFolder.create(Path(recipe.run_root), recipe)
    draw = random.Random(0)
    kills, committed = 0, 0
    while not of_kind(read_events(folder.events_path), "run_finished"):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(folder.path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        if kills < KILLS:
            time.sleep(0.2 + draw.random() * 2.5 * seconds / KILLS)
            child.send_signal(signal.SIGKILL)
            kills += 1
        child.wait()
        entries = read_events(folder.events_path)
        rounds = [event["round"] for event in of_kind(entries, "round_committed")]
        assert rounds == list(range(1, len(rounds) + 1))
        assert len(rounds) >= committed
        committed = len(rounds)
    assert kills >= KILLS / 2, "the run was too short for its kills"
    assert of_kind(read_events(folder.events_path), "run_finished")[-1]["digest"] == expected
    assert verify_run(folder).problems == []
    digests = [[e["digest"] for e in of_kind(read_events(f.events_path), "round_committed")] for f in (whole, folder)]
    assert digests[0] == digests[1]
