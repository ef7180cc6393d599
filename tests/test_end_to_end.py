"""The same recipe on every way to run it: one process, Flower's simulation, real SuperLink and SuperNodes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from server.run_folder.journal import read_events
from tests.federation import of_kind, run_recipe
from tests.places import ROOT
from trfmoe_core.config import load_recipe
from trfmoe_core.data.sample.owners import build_sample

TINY = ROOT / "configs" / "tiny.yaml"
MARK = "TRFMOE_TEST_MARK"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a space in its name, with the sample data in it."""
    folder = tmp_path_factory.mktemp("a b")
    build_sample(folder / "data" / "sample")
    return folder


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment whose processes can be found again, and that must leave none behind."""
    mark = str(tmp_path)
    environment = {**os.environ, MARK: mark, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment |= {"TRFMOE_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    yield environment
    left = wait_for_none(mark, 15)
    for process in left:
        process.kill()
    assert not left, [process.cmdline() for process in left]


def wait_for_none(mark: str, patience_s: float) -> list[psutil.Process]:
    end = time.monotonic() + patience_s
    while (left := marked(mark)) and time.monotonic() < end:
        time.sleep(0.3)
    return left


def marked(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def simulate(*arguments: str, cwd: Path, env: dict[str, str]) -> tuple[int, dict[str, Any]]:
    return command("simulate", *arguments, cwd=cwd, env=env)


def command(*arguments: str, cwd: Path, env: dict[str, str]) -> tuple[int, dict[str, Any]]:
    argv = [sys.executable, "-m", "scripts", *arguments, "--json"]
    done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, timeout=580)
    lines = done.stdout.strip().splitlines()
    assert lines, done.stderr
    return done.returncode, json.loads(lines[-1])


def digest_in_process(workplace: Path) -> str:
    recipe = load_recipe(TINY).resolved(workplace)
    _, events = run_recipe(recipe.model_copy(update={"run_root": str(workplace / "in-process")}))
    return str(of_kind(events, "run_finished")[0]["digest"])


def test_flwr_run_gives_the_weights_of_the_in_process_grid(workplace: Path, environment: dict[str, str]) -> None:
    code, outcome = simulate(str(TINY), cwd=workplace, env=environment)
    assert (code, outcome["outcome"], outcome["rounds"]) == (0, "completed", 3)
    assert len(outcome["bits_per_byte"]) == 4
    assert outcome["outvoted"] == {"alice": 0, "bob": 0, "carol": 0}
    assert (Path(outcome["run_dir"]) / "report.html").is_file()
    assert outcome["digest"] == digest_in_process(workplace)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_real_processes_give_the_same_weights(workplace: Path, environment: dict[str, str]) -> None:
    unsalted = yaml.safe_load(TINY.read_text())
    for node in unsalted["nodes"]:
        node["salt"] = ""  # a real node draws a secret for the order of its batches, a simulated one has none
    (workplace / "tiny.yaml").write_text(yaml.safe_dump(unsalted))
    code, outcome = command("deploy", "local", "tiny.yaml", cwd=workplace, env=environment)
    assert (code, outcome["outcome"], outcome["rounds"]) == (0, "completed", 3)
    assert outcome["digest"] == digest_in_process(workplace)
    logs = Path(outcome["run_dir"]) / "logs"
    assert {path.stem for path in logs.iterdir()} == {"superlink", "superexec", "alice", "bob", "carol"}
    assert "[::]" not in (logs / "superlink.log").read_text()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_deployment_ends_with_its_command(
    workplace: Path, environment: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    arguments = ["deploy", "local", str(TINY), "--set", "rounds.num_rounds=400", "--set", f"run_root={tmp_path}"]
    with subprocess.Popen(
        [sys.executable, "-m", "scripts", *arguments],
        cwd=workplace,
        env={**environment, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert any("nodes are up" in line for line in process.stdout)
        names = {Path(part).name for found in marked(environment[MARK]) for part in found.cmdline()[:3]}
        assert {"flower-superlink", "flower-superexec", "scripts.deploy.prompt_supernode"} <= names
        process.send_signal(number)
        process.stdout.read()
    assert process.returncode == (-number if number == signal.SIGKILL else 130)
    assert not wait_for_none(environment[MARK], 15)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["command", "server app", "everything"])
def test_a_killed_run_goes_on_at_the_last_committed_round(
    workplace: Path, environment: dict[str, str], tmp_path: Path, victim: str
) -> None:
    arguments = [str(TINY), "--set", "rounds.num_rounds=6", "--set", f"run_root={tmp_path}", "--set", "name=killed"]
    process = subprocess.Popen(
        [sys.executable, "-m", "scripts", "simulate", *arguments],
        cwd=workplace,
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    journal = tmp_path / "killed-001" / "events.jsonl"
    end = time.monotonic() + 120
    while len(of_kind(read_events(journal), "round_committed")) < 2:
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.05)
    if victim == "command":
        process.send_signal(signal.SIGKILL)
    elif victim == "server app":
        for found in marked(environment[MARK]):
            with contextlib.suppress(psutil.Error):
                if "flwr-simulation" in " ".join(found.cmdline()):
                    found.kill()
    else:
        for found in marked(environment[MARK]):
            found.kill()
    process.wait(timeout=60)
    assert process.returncode != 0
    assert not wait_for_none(environment[MARK], 10)
    committed = len(of_kind(read_events(journal), "round_committed"))
    assert committed < 6
    code, outcome = simulate(*arguments, "--resume", cwd=workplace, env=environment)
    assert (code, outcome["outcome"], outcome.get("rounds")) == (0, "completed", 6), outcome
    events = read_events(journal)
    assert of_kind(events, "run_started")[-1]["resumed_from"] == committed
    assert [event["round"] for event in of_kind(events, "round_committed")] == list(range(1, 7))
    assert len({event["run_id"] for event in of_kind(events, "run_started")}) == 1


@pytest.mark.slow
def test_two_coordinators_never_write_one_folder(workplace: Path, environment: dict[str, str], tmp_path: Path) -> None:
    arguments = [str(TINY), "--set", "rounds.num_rounds=400", "--set", f"run_root={tmp_path}", "--set", "name=twice"]
    first = subprocess.Popen(
        [sys.executable, "-m", "scripts", "simulate", *arguments],
        cwd=workplace,
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    try:
        journal = tmp_path / "twice-001" / "events.jsonl"
        end = time.monotonic() + 120
        while not of_kind(read_events(journal), "round_committed"):
            assert time.monotonic() < end
            time.sleep(0.1)
        second = subprocess.run(
            [sys.executable, "-m", "scripts", "simulate", *arguments, "--resume"],
            cwd=workplace,
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert second.returncode == 2
        assert "is writing this run" in second.stderr
        assert "Traceback" not in second.stderr
    finally:
        first.send_signal(signal.SIGTERM)
        first.wait(timeout=60)
    events = read_events(journal)
    assert [event["seq"] for event in events] == list(range(len(events)))
    assert len(of_kind(events, "run_started")) == 1
