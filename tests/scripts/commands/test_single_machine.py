"""`trfmoe train` as people use it on one machine: their text, longer runs, warm starts, signals, and what it says."""

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.main import main
from scripts.run.local import run as local_run
from server.run_folder.checkpoints import Checkpoint, checkpoint_rounds
from server.run_folder.folder import RunFolder
from server.run_folder.journal import read_events
from server.run_folder.verify import verify_run
from tests.conftest import words
from tests.places import ROOT
from trfmoe_core.data.tokenizers import load_tokenizer
from trfmoe_core.training import device

MODEL = {"layers": 1, "width": 16, "heads": 2, "experts": 2, "expert_width": 16, "context": 16}
FEDERAL = re.compile(r"\b(vot\w*|verdict\w*|round\w*|node\w*|outvoted|replica\w*|bytes (up|down)|federat\w*)\b", re.I)


@pytest.fixture(autouse=True)
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A recipe for one machine, also as r.yaml in the working folder."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("papers", "others")):
        Path(name).mkdir()
        Path(name, "text.txt").write_text(words(number, 1500))
    raw = {
        "name": "t",
        "model": MODEL,
        "data": {"sources": ["papers"], "evaluation_tokens": 128, "piece_bytes": 256},
        "training": {"steps": 6, "batch_size": 2, "warmup_steps": 1, "device": "cpu", "learning_rate": 0.01},
        "local": {"log_every": 2, "evaluate_every": 3},
    }
    Path("r.yaml").write_text(yaml.safe_dump(raw))
    return raw


def call(capfd: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    with pytest.raises(SystemExit):
        main([*arguments, "--json"])
    written = capfd.readouterr()
    assert "Traceback" not in written.err, written.err
    result = json.loads(written.out.splitlines()[-1])
    assert isinstance(result, dict)
    return {**result, "shown": written.err}


def events(run: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [event for event in read_events(Path(run["run_dir"]) / "events.jsonl") if event["event"] == kind]


def test_one_node_own_text_a_list_and_pdfs_are_the_same_run(
    recipe: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    def written(**changes: Any) -> str:
        Path("v.yaml").write_text(yaml.safe_dump(recipe | changes))
        return "v.yaml"

    data = {key: value for key, value in recipe["data"].items() if key != "sources"}
    one = {"name": "a", "data": ["papers"], "threads": 1}
    runs = [
        call(capfd, "train", "r.yaml"),
        call(capfd, "train", written(data=data, nodes=[one])),
        call(capfd, "train", written(data=data), "--pdfs", "papers"),
        call(capfd, "train", written(data=["papers"]), "--set", "data.evaluation_tokens=128"),
    ]
    assert [run["outcome"] for run in runs] == ["completed"] * 3 + ["error"], runs[3]
    assert len({run["digest"] for run in runs[:3]}) == 1
    Path("v.yaml").write_text(yaml.safe_dump(recipe | {"data": ["papers"]}))
    assert call(capfd, "train", "v.yaml", "--dry-run")["recipe"]["data"]["sources"] == [str(Path("papers").absolute())]
    told = call(capfd, "simulate", written(data=data, nodes=[one]))
    assert "nodes: 1 given, but every expert is trained by 3 nodes" in told["error"]
    assert "data.sources: the recipe names no text" in call(capfd, "train", written(data=data))["error"]


def test_console_and_report_speak_of_training_alone(capfd: pytest.CaptureFixture[str]) -> None:
    run = call(capfd, "train", "r.yaml")
    page = (Path(run["run_dir"]) / "report.html").read_text()
    body = re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.S)
    for text in (run["shown"], body):
        assert not FEDERAL.search(text.replace("ground", "")), FEDERAL.search(text)
    assert re.search(r"step 6/6  loss \d\.\d+  bits/byte .*learning rate 0\.001  .* tokens/s", run["shown"])
    assert [event["round"] for event in events(run, "node_reply")] == [2, 3, 4, 6]
    assert "Learning rate" in body and "training loss" in page


def test_a_run_is_made_longer_and_the_journal_says_how(capfd: pytest.CaptureFixture[str]) -> None:
    first = call(capfd, "train", "r.yaml")
    assert "make it longer with: trfmoe train --run-dir" in call(capfd, "train", "r.yaml", "--resume")["shown"]
    fewer = call(capfd, "train", "r.yaml", "--resume", "--set", "training.steps=5")
    assert "training.steps: makes a run of 5 steps, and" in fewer["error"] and "has made 6 already" in fewer["error"]
    longer = call(capfd, "train", "--run-dir", first["run_dir"], "--set", "training.steps=12")
    assert (longer["run_dir"], longer["steps"], longer["outcome"]) == (first["run_dir"], 12, "completed")
    (changed,) = events(longer, "recipe_changed")
    assert "settings changed after step 6: training.steps from 6 to 12" in changed["text"]
    assert "the learning rate was 0.001 and goes on at 0.00" in changed["text"] and changed["text"] in longer["shown"]
    rates = [event["learning_rate"] for event in events(longer, "node_reply")]
    assert rates[3] == pytest.approx(0.001) and rates[4] > 0.003 and rates[-1] == pytest.approx(0.001)
    folder = RunFolder.open(Path(longer["run_dir"]))
    assert verify_run(folder).problems == []
    assert folder.recipe.training.steps == 12
    page = (folder.path / "report.html").read_text()
    assert "resumed" in page and "after step 6" in page
    (folder.path / "recipe.yaml").write_text(
        (folder.path / "recipe.yaml").read_text().replace("steps: 12", "steps: 13")
    )
    assert "recipe.yaml is not the recipe" in verify_run(folder).problems[0]


def test_a_resumed_run_keeps_the_number_type_and_the_threads_with_which_it_began(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the machine or the defaults would now give others, as after an update."""
    monkeypatch.setattr(device, "BFLOAT16_WIDTH", 1)
    monkeypatch.setattr(device, "cpu_multiplies_bfloat16", lambda: False)
    steps = ("--set", "training.steps=6", "--set", "training.schedule=constant")
    began = call(capfd, "train", "r.yaml", *steps, "--set", "training.threads=1")
    monkeypatch.setattr(device, "cpu_multiplies_bfloat16", lambda: True)
    longer = ("--set", "training.steps=9", "--set", "training.schedule=constant")
    read = local_run.last_checkpoint

    def of_an_earlier_release(folder: RunFolder) -> Checkpoint | None:
        found = read(folder)
        return found and replace(found, state={key: found.state[key] for key in found.state if key != "computed"})

    for place, reader in (("as-saved", read), ("earlier", of_an_earlier_release)):
        shutil.copytree(began["run_dir"], place)
        monkeypatch.setattr(local_run, "last_checkpoint", reader)
        resumed = call(capfd, "train", "r.yaml", "--run-dir", place, *longer)
        assert [event["device"] for event in events(resumed, "node_joined")] == ["cpu, 1 thread, float32"] * 2
        assert list(events(resumed, "recipe_changed")[0]["changes"]) == ["training.steps"]
    new = call(capfd, "train", "r.yaml", *longer)
    assert events(new, "node_joined")[0]["device"].endswith("bfloat16")


def test_an_epoch_is_replaced_by_steps_on_the_command_line(
    recipe: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    recipe["training"] |= {"steps": None, "epochs": 3}
    Path("r.yaml").write_text(yaml.safe_dump(recipe))
    assert call(capfd, "train", "r.yaml", "--set", "training.steps=2")["steps"] == 2


def test_nothing_to_resume_names_the_runs_there_are(capfd: pytest.CaptureFixture[str]) -> None:
    assert "there are no runs at all" in call(capfd, "train", "r.yaml", "--resume")["error"]
    call(capfd, "train", "r.yaml", "--set", "name=first", "--set", "training.steps=1")
    told = call(capfd, "train", "r.yaml", "--resume")
    assert told["exit_code"] == 2
    assert "there is no run of t-local" in told["error"] and "there are first-local-001 " in told["error"]
    assert "no recipe; give one" in call(capfd, "train")["error"]


def test_a_resume_remembers_the_text_that_it_was_given(capfd: pytest.CaptureFixture[str]) -> None:
    run = call(capfd, "train", "r.yaml", "--pdfs", "others")
    longer = call(capfd, "train", "r.yaml", "--resume", "--set", "training.steps=8")
    assert (longer["run_dir"], longer["steps"]) == (run["run_dir"], 8)
    other = call(capfd, "train", "r.yaml", "--resume", "--pdfs", "papers")
    assert "data.sources.0" in other["error"]


def test_a_run_begins_with_the_weights_of_another(capfd: pytest.CaptureFixture[str]) -> None:
    first = call(capfd, "train", "r.yaml", "--set", "local.keep_last=9")
    last = call(capfd, "train", "--from", first["run_dir"], "--last", "--set", "training.steps=2")
    assert last["outcome"] == "completed" and last["run_dir"] != first["run_dir"]
    assert last["bits_per_byte"][0] == first["bits_per_byte"][-1]
    assert f"begins with the weights of {first['run_dir']}, step 6" in last["shown"]
    assert events(last, "run_started")[0]["origin"]["from"]["round"] == 6
    again = call(capfd, "train", "--run-dir", last["run_dir"], "--set", "training.steps=3")
    assert again["steps"] == 3 and verify_run(RunFolder.open(Path(again["run_dir"]))).problems == []
    more = call(capfd, "train", "r.yaml", "--from", first["run_dir"], "--set", "training.steps=1", "--pdfs", "others")
    assert more["outcome"] == "completed"
    wider = call(capfd, "train", "r.yaml", "--from", first["run_dir"], "--set", "model.experts=4")
    assert "model.experts: 2 there, 4 here" in wider["error"]
    assert "leave one of them out" in call(capfd, "train", "r.yaml", "--from", first["run_dir"], "--resume")["error"]


def test_a_vocabulary_too_small_is_told_with_both_numbers(capfd: pytest.CaptureFixture[str]) -> None:
    tokens = load_tokenizer("byte").vocab_size
    for more in (["--dry-run"], []):
        told = call(capfd, "train", "r.yaml", "--set", "model.vocab_size=100", *more)
        assert told["exit_code"] == 2
        assert f"model.vocab_size: 100 rows, but tokenizer byte has {tokens} tokens" in told["error"]
    assert not Path("runs").exists() or not list(Path("runs").iterdir())


def test_a_dry_run_finds_what_will_fail(recipe: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    Path("Grüße").mkdir()
    Path("Grüße/a.txt").write_text("a")
    wrong = ("data.tokenizer=./gone", "data.sources=[empty, missing]", "witness={data: [public.txt]}")
    told = call(capfd, "train", "r.yaml", "--dry-run", *[part for one in wrong for part in ("--set", one)])["error"]
    for problem in (
        "data.tokenizer: tokenizer",
        "no file of a known format",
        "missing: no such file",
        "witness.data: ",
    ):
        assert problem in told, told
    hub = "data.sources=[{source: fineweb, max_documents: 50}]"
    told = call(capfd, "train", "r.yaml", "--dry-run", "--set", hub, "--set", "data.offline=yes")["error"]
    assert "holds 0 documents" in told and "50 are asked for" in told
    shown = call(capfd, "train", "r.yaml", "--dry-run", "--pdfs", "Grüße", "--set", "training.warmup_steps=99")["shown"]
    assert "Grüße" in shown and "agreement" not in shown
    assert "warning: training.warmup_steps: 99 is more than half of the run's 6 steps" in shown
    assert yaml.safe_load(shown)["training"]["steps"] == 6
    assert "agreement" in call(capfd, "train", "r.yaml", "--dry-run", "--all")["shown"]


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_closed_terminal_and_a_stop_save_as_ctrl_c_does(number: signal.Signals) -> None:
    """SIGHUP comes from a real terminal that is closed."""
    settings = ("training.steps=100000", "local.evaluate_every=100000", "local.log_every=1")
    command = [sys.executable, "-m", "scripts", "train", "r.yaml"]
    command += [part for one in settings for part in ("--set", one)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    journal = Path("runs/t-local-001/events.jsonl")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=_own_terminal
    )
    os.close(theirs)
    try:
        end = time.monotonic() + 200
        while sum(event["event"] == "node_reply" for event in read_events(journal)) < 5:
            assert process.poll() is None and time.monotonic() < end
            _drain(ours)
        if number == signal.SIGHUP:
            os.close(ours)
        else:
            process.send_signal(number)
            while process.poll() is None and _drain(ours):
                pass
        process.wait(60)
    finally:
        process.kill()
    (saved,) = checkpoint_rounds(journal.parent / "checkpoints")
    assert saved >= 5
    assert [event["round"] for event in read_events(journal) if event["event"] == "round_committed"] == [saved]


def _drain(terminal: int) -> bool:
    """Reads what has been written to a terminal, which would stop its writer once it is full; False: it is closed."""
    try:
        if select.select([terminal], [], [], 0.05)[0]:
            os.read(terminal, 65536)
    except OSError:
        return False
    return True


def _own_terminal() -> None:
    import fcntl
    import termios

    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # below nohup it is ignored, and stays so
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_offline_wandb_says_where_it_wrote_and_how_to_send_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    run = call(capfd, "train", "r.yaml", "--set", "log.wandb=offline", "--set", "training.steps=2")
    place = Path(run["run_dir"]) / "wandb"
    assert f"W&B        {place}, nothing was sent; to send it: wandb sync {place}/offline-run-" in run["shown"]


@pytest.mark.parametrize("more", [["--dry-run"], []])
@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("vote=best", "--set vote=best: vote: 'best' is unknown; choose one of"),
        ("outer.optimizer=x", "--set outer.optimizer=x: outer.optimizer: 'x' is unknown"),
        ("log.sinks=[nowhere]", "log.sinks.0: 'nowhere' is unknown"),
        ("model.expert=relu", "--set model.expert=relu: model.expert: 'relu' is unknown"),
        ("data.tokenizer=./r.yaml", "is a file, and a tokenizer is the folder that holds it"),
        ("training.device=gpu", "'gpu' is not allowed; give auto, cpu, cuda, or one CUDA device"),
        ("model.context=1000000", "even one sequence at a time would take too much: lower model.context (1,000,000)"),
        ("run_root=r.yaml/runs", "choose another with --set run_root=DIR"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_at_once(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, setting: str, told: str, more: list[str]
) -> None:
    monkeypatch.setattr("scripts.run.local.memory_check.free_memory", lambda device: (10**9, "free on this machine"))
    run = call(capfd, "train", "r.yaml", "--set", setting, *more)
    assert run["exit_code"] == 2 and told in run["error"], run["error"]
    assert not list(Path().glob("runs/*"))


def test_too_large_a_batch_is_told_with_what_fits(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.run.local.memory_check.free_memory", lambda device: (10**9, "free on this machine"))
    told = call(capfd, "train", "r.yaml", "--set", "training.batch_size=65536")["error"]
    assert re.search(r"not enough memory: training takes about [\d.]+ GB .*1 GB are free on this machine; use ", told)
    batch, parts = map(int, re.search(r"batch_size=(\d+) --set training.accumulation=(\d+)", told).groups())  # type: ignore[union-attr]
    assert batch * parts == 65536


def test_a_dry_run_says_what_it_found_and_whose_weights_it_takes(capfd: pytest.CaptureFixture[str]) -> None:
    shown = call(capfd, "train", "r.yaml", "--dry-run")["shown"]
    assert f"# {Path('papers').absolute()}: 1 file (1 txt), 0.0 MB" in shown
    assert re.search(r"# training takes about \d+ MB of memory", shown)
    first = call(capfd, "train", "r.yaml")
    assert f"try it     trfmoe generate {first['run_dir']}" in first["shown"]
    again = call(capfd, "train", "--from", first["run_dir"], "--dry-run")["shown"]
    assert f"# the run begins with the weights of {first['run_dir']} after step" in again
    other = call(capfd, "train", "--from", first["run_dir"], "--set", "model.layers=2")["error"]
    assert "leave these settings out" in other and "leave the recipe out" not in other
    differing = call(capfd, "train", "r.yaml", "--resume", "--set", "model.layers=2")["error"]
    assert "or repeat the options of its start: --set model.layers=1" in differing
    fewer = call(capfd, "train", "r.yaml", "--resume", "--set", "training.steps=2")
    assert "--set training.steps=6" in fewer["error"] and "train tokens" not in fewer["shown"]
    assert "papers/text.txt, " not in call(capfd, "train", "r.yaml")["shown"], "unchanged files are not listed again"
    assert call(capfd, "runs", "show")["exit_code"] == 0
