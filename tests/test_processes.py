"""Real SuperLink, executor and SuperNodes with one of them hurt: the run goes on, and no process is left."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from scripts.deploy.deployment import Deployment
from scripts.process_drill.play import choose
from scripts.process_drill.scenarios import SCENARIOS
from scripts.processes.guard import processes_of
from server.run_folder.folder import RunFolder
from tests.conftest import TINY, words
from tests.places import ROOT
from trfmoe_core.config import Recipe
from trfmoe_core.errors import ConfigError

SLOW_ONES = [scenario.name for scenario in SCENARIOS]


NAMES = ("ada", "bob", "cyd")


def drill(folder: Path, name: str) -> None:
    nodes = []
    for number, node in enumerate(NAMES):
        (folder / node).mkdir()
        (folder / node / "text.txt").write_text(words(number, 4000))
        nodes.append({"name": node, "data": [str(folder / node)]})
    recipe = folder / "recipe.yaml"
    recipe.write_text(json.dumps({**TINY, "rounds": {"local_steps": 4}, "nodes": nodes}))
    command = [sys.executable, "-m", "scripts", "drill", str(recipe), "--processes", "--attacks", name, "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TRFMOE_CACHE": str(folder / "cache")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1700)
    told = json.loads(done.stdout.strip().splitlines()[-1])
    assert done.returncode == told["exit_code"] and "scenarios" in told, (told, done.stderr[-3000:])
    scenario: dict[str, Any] = told["scenarios"][0]
    if "skipped" in scenario:
        pytest.skip(scenario["skipped"])
    assert scenario["ok"], (scenario, done.stderr[-3000:])


@pytest.mark.timeout(600)
def test_a_killed_superlink_and_executor_are_started_again(tiny_recipe: Callable[..., Recipe]) -> None:
    recipe = tiny_recipe()
    told: list[str] = []
    with Deployment(RunFolder.create(Path(recipe.run_root), recipe), "process", told.append) as deployment:
        scratch = deployment.scratch
        deployment.start()
        assert deployment.submission is not None
        control = deployment.submission.control
        assert {name: node.status for name, node in control.nodes().items()} == dict.fromkeys(NAMES, "online")
        killed = {name: deployment.services[name].pid for name in ("superlink", "superexec")}
        for pid in killed.values():
            psutil.Process(pid).kill()
        end = time.monotonic() + 300
        while not (deployment.keep_up() and len(told) == 2):
            assert time.monotonic() < end, told
            time.sleep(0.1)
        assert {name: deployment.services[name].pid for name in killed} != killed
        assert sorted(line.split(" ended (killed by SIGKILL")[0] for line in told) == ["superexec", "superlink"]
        assert set(control.nodes()) == set(NAMES), "the keys are in the database"
        assert {p.pid for p in processes_of(scratch)} >= {service.pid for service in deployment.services.values()}
    assert not processes_of(scratch)


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
