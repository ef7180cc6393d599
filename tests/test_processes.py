"""Real SuperLink, executor and SuperNodes with one of them hurt: the run goes on, and no process is left."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts.process_drill import choose
from scripts.process_faults import SCENARIOS
from tests.conftest import TINY, words
from trfmoe_core.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
SLOW_ONES = [scenario.name for scenario in SCENARIOS]


def drill(folder: Path, name: str, *overrides: str) -> dict[str, Any]:
    nodes = []
    for number, node in enumerate(("ada", "bob", "cyd")):
        (folder / node).mkdir()
        (folder / node / "text.txt").write_text(words(number, 4000))
        nodes.append({"name": node, "data": [str(folder / node)]})
    recipe = folder / "recipe.yaml"
    recipe.write_text(json.dumps({**TINY, "rounds": {"local_steps": 4}, "nodes": nodes}))
    command = [sys.executable, "-m", "scripts", "drill", str(recipe), "--processes", "--attacks", name, "--json"]
    for override in overrides:
        command += ["--set", override]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TRFMOE_CACHE": str(folder / "cache")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1700)
    told = json.loads(done.stdout.strip().splitlines()[-1])
    assert done.returncode == told["exit_code"], done.stderr
    scenario: dict[str, Any] = told["scenarios"][0]
    if "skipped" in scenario:
        pytest.skip(scenario["skipped"])
    assert scenario["ok"], (scenario, done.stderr[-3000:])
    return scenario


@pytest.mark.timeout(900)
def test_a_killed_server_app_is_replaced_while_the_nodes_train(tmp_path: Path) -> None:
    told = drill(tmp_path, "server app killed", "rounds.num_rounds=2")
    assert told["training_again_s"] > 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", SLOW_ONES)
def test_every_scenario(tmp_path: Path, name: str) -> None:
    drill(tmp_path, name)


def test_scenarios_have_names_of_their_own() -> None:
    assert [scenario.name for scenario in choose([])] == SLOW_ONES
    assert len(set(SLOW_ONES)) == len(SLOW_ONES)
    assert not any("," in name for name in SLOW_ONES), "the command line separates them by commas"
    with pytest.raises(ConfigError, match=r"no such fault.*server app killed"):
        choose(["no such fault"])
