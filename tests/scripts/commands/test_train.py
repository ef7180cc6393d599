"""`trfmoe train`: how long, how often, and exactly on after SIGKILL and Ctrl-C."""

import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from scripts.main import main
from server.run_folder.checkpoints import checkpoint_rounds
from server.run_folder.folder import RunFolder
from server.run_folder.journal import read_events
from server.run_folder.verify import verify_run
from tests.conftest import words
from tests.places import ROOT


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe over small texts, in the working folder."""
    monkeypatch.chdir(tmp_path)
    nodes = []
    for number, name in enumerate(("ada", "bob", "cyd")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "text.txt").write_text(words(number, 2000))
        nodes.append({"name": name, "data": [name]})
    model = {"layers": 2, "width": 32, "heads": 2, "experts": 4, "expert_width": 32, "context": 32}
    text = {
        "name": "t",
        "model": model,
        "data": {"evaluation_tokens": 256, "piece_bytes": 512},
        "training": {"batch_size": 2, "warmup_steps": 1, "device": "cpu"},
        "rounds": {"num_rounds": 2, "local_steps": 2},
        "nodes": nodes,
    }
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(text))
    return path


def train(capfd: pytest.CaptureFixture[str], *settings: str, more: tuple[str, ...] = ()) -> dict[str, Any]:
    arguments = [part for setting in settings for part in ("--set", setting)]
    with pytest.raises(SystemExit) as exit_info:
        main(["train", "r.yaml", *arguments, *more, "--json"])
    written = capfd.readouterr()
    result = json.loads(written.out.splitlines()[-1])
    assert isinstance(result, dict) and result["exit_code"] == exit_info.value.code
    return {**result, "shown": written.err}


def steps_of(run: dict[str, Any], kind: str) -> list[int]:
    return [event["round"] for event in read_events(Path(run["run_dir"]) / "events.jsonl") if event["event"] == kind]


@pytest.mark.parametrize(
    ("setting", "steps"),
    [("steps=3", 3), ("tokens=300", 5), ("epochs=0.05", None), (None, 4)],
)
def test_the_budget(recipe: Path, capfd: pytest.CaptureFixture[str], setting: str | None, steps: int | None) -> None:
    """300 tokens are 4.7 batches of 2 x 32; without a budget it is that of the rounds."""
    run = train(capfd, *([f"training.{setting}"] if setting else []))
    events = read_events(Path(run["run_dir"]) / "events.jsonl")
    if steps is None:
        windows = (next(e["train_tokens"] for e in events if e["event"] == "node_joined") - 1) // 32
        steps = -(-0.05 * windows // 2)
    assert run["steps"] == steps
    assert f"step {int(steps)}/{int(steps)}  loss" in run["shown"]
    trained = [event for event in events if event["event"] == "node_reply"]
    assert sum(event["tokens"] for event in trained) == steps * 2 * 32
    assert all(event["peak_memory_bytes"] > 1e7 and 0 <= event["data_wait_share"] <= 1 for event in trained)
    assert "peak memory" in (Path(run["run_dir"]) / "report.html").read_text()


def test_two_budgets_are_one_too_many(recipe: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = train(capfd, "training.steps=3", "training.epochs=2")
    assert run["exit_code"] == 2
    assert "training.steps: steps and epochs each determine the length of the run; keep one of them" in run["error"]


def test_it_evaluates_and_saves_as_often_as_it_is_told(recipe: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = train(
        capfd, "training.steps=14", "local.evaluate_every=4", "local.save_every=3", "local.keep_last=3",
        "training.schedule=constant", "training.learning_rate=0.3",
    )  # fmt: skip
    evaluated = [event for event in read_events(Path(run["run_dir"]) / "events.jsonl") if event["event"] == "evaluated"]
    assert [event["round"] for event in evaluated] == [0, 4, 8, 12, 14]
    best = min(evaluated[1:], key=lambda event: event["bits_per_byte"])["round"]
    assert run["best_round"] == min(evaluated, key=lambda event: event["bits_per_byte"])["round"]
    saved = steps_of(run, "round_committed")
    assert {3, 6, 9, 12, 14} <= set(saved)
    assert best in saved, "the best is saved also between two saves"
    kept = checkpoint_rounds(Path(run["run_dir"]) / "checkpoints")
    assert kept == sorted({*saved[-3:], best})


def test_strange_numbers_of_devices_are_refused(recipe: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "give 1 to 1024, or all" in train(capfd, more=("--devices", "0"))["error"]
    assert "give a number of devices, or all" in train(capfd, more=("--devices", "many"))["error"]
    refused = train(capfd, "training.device=cuda:0", more=("--devices", "2"))
    assert "set device to cuda" in refused["error"]


def child(*arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "scripts", "train", "r.yaml", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(journal: Path, kind: str, count: int, process: "subprocess.Popen[str]") -> None:
    end = time.monotonic() + 120
    while sum(event["event"] == kind for event in read_events(journal)) < count:
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.02)


def same_result(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Weights, moments, cursor and what was measured are equal bit for bit."""
    assert (first["digest"], first["bits_per_byte"]) == (second["digest"], second["bits_per_byte"])
    last = f"checkpoints/round-{first['steps']:06d}"
    ours, theirs = (load_file(Path(run["run_dir"]) / last / "outer.safetensors") for run in (first, second))
    assert ours.keys() == theirs.keys() and all(ours[key].equal(theirs[key]) for key in ours)
    states = [json.loads((Path(run["run_dir"]) / last / "state.json").read_text()) for run in (first, second)]
    assert states[0]["place"] == states[1]["place"] and states[0]["best"] == states[1]["best"]


def test_ctrl_c_saves_and_says_how_to_go_on(recipe: Path, capfd: pytest.CaptureFixture[str]) -> None:
    settings = ("training.steps=160", "local.evaluate_every=80")
    process = child(*[part for setting in settings for part in ("--set", setting)])
    journal = Path("runs/t-local-001/events.jsonl")
    wait_for(journal, "evaluated", 1, process)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    saved = re.search(r"stopped; everything up to step (\d+) is saved", out)
    assert saved and 0 < int(saved[1]) < 160 and int(saved[1]) == checkpoint_rounds(journal.parent / "checkpoints")[-1]
    assert "Traceback" not in err
    hint = next(line for line in out.splitlines() if "trfmoe train" in line)
    again = shlex.split(hint[hint.index("trfmoe train") :])
    with pytest.raises(SystemExit) as exit_info:
        main([*again[1:], "--json"])
    assert exit_info.value.code == 0
    resumed = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert resumed["run_dir"] == str(journal.parent.absolute())
    whole = train(capfd, *settings)
    assert whole["run_dir"] != resumed["run_dir"]
    same_result(whole, resumed)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_sigkill_at_any_instant_changes_nothing(recipe: Path, capfd: pytest.CaptureFixture[str]) -> None:
    settings = ("training.steps=120", "local.evaluate_every=6", "local.save_every=4", "data.evaluation_tokens=64")
    whole = train(capfd, *settings)
    settings = (*settings, "run_root=killed")
    arguments = [part for setting in settings for part in ("--set", setting)]
    journal, draw, kills = Path("killed/t-local-001/events.jsonl"), random.Random(0), 0
    while not any(event["event"] == "run_finished" for event in read_events(journal)):
        before = len(read_events(journal))
        process = child(*arguments, *(["--resume"] if list(Path("killed").glob("*/recipe.yaml")) else []))
        if kills < 12:
            events = before + draw.randrange(12)
            while len(read_events(journal)) <= events and process.poll() is None:
                time.sleep(0.005)
            time.sleep(draw.random() * 0.05)
            process.kill()
            kills += 1
        process.communicate()
    assert kills >= 8, "the run was too short for its kills"
    finished = train(capfd, *settings, more=("--resume",))
    same_result(whole, finished)
    assert verify_run(RunFolder.open(journal.parent)).problems == []


@pytest.mark.slow
def test_two_devices_go_on_as_one_and_as_two(recipe: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Killed and resumed with two ranks it is bit for bit; with one it is the same but for the order of sums."""
    settings = ("training.steps=30", "local.evaluate_every=10", "local.save_every=3")
    two = ("--devices", "2")
    whole = train(capfd, *settings, more=two)
    assert whole["outcome"] == "completed", whole
    for number, devices in ((2, 2), (3, 1)):
        process = child(*[part for setting in settings for part in ("--set", setting)], *two)
        journal = Path(f"runs/t-local-{number:03d}/events.jsonl")
        wait_for(journal, "round_committed", 2, process)
        process.kill()
        process.communicate()
        other = () if devices == 2 else ("training.batch_size=4",)
        done = train(capfd, *settings, *other, more=("--devices", str(devices), "--run-dir", str(journal.parent)))
        assert done["outcome"] == "completed", done
        if devices == 2:
            same_result(whole, done)
        else:
            assert done["bits_per_byte"] == pytest.approx(whole["bits_per_byte"], abs=1e-4)
            assert "resumed after step" in done["shown"]
    process = child(
        *[part for setting in settings for part in ("--set", setting)], *two, "--set", "training.steps=3000"
    )
    journal = Path("runs/t-local-004/events.jsonl")
    wait_for(journal, "round_committed", 1, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    saved = re.search(r"stopped; everything up to step (\d+) is saved", out)
    assert saved and int(saved[1]) == checkpoint_rounds(journal.parent / "checkpoints")[-1] > 3
