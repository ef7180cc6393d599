"""A federation goes on by its run folder alone, and can be made longer; its nodes and the vote run for real."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts.main import main
from scripts.run import federated_run
from scripts.run.outcome import RunOutcome, judge
from scripts.terminal.output import Output
from server.app import run
from server.run_folder.folder import RunFolder
from server.run_folder.history import RunHistory
from server.run_folder.journal import read_events
from server.run_folder.verify import verify_run
from tests.federation import grid_of, of_kind, run_recipe
from trfmoe_core.config import Recipe

GENTLE = {"min_learning_rate": 1e-4, "warmup_steps": 0}


@pytest.fixture
def finished(tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run of two rounds of two steps, whose learning rate has fallen to a tenth."""

    def engine(folder: RunFolder, _: Output) -> RunOutcome:
        run(grid_of(folder), folder)
        return judge(RunHistory(read_events(folder.events_path)), folder.path)

    monkeypatch.setattr(federated_run, "simulate_rounds", engine)
    recipe = tiny_recipe()
    rounds = recipe.rounds.model_copy(update={"num_rounds": 2, "local_steps": 2})
    training = recipe.training.model_copy(update={"learning_rate": 1e-3, **GENTLE})
    return run_recipe(recipe.model_copy(update={"rounds": rounds, "training": training}))[0]


def trfmoe(capsys: pytest.CaptureFixture[str], *given: str) -> dict[str, Any]:
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main([*given, "--json"])
    told = capsys.readouterr()
    return {**json.loads(told.out.strip().splitlines()[-1]), "shown": told.err}


def test_a_finished_federation_is_made_longer(finished: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    where = str(finished.path)
    again = trfmoe(capsys, "simulate", "--run-dir", where)
    assert "complete after 2 rounds; nothing to do" in again["shown"]
    assert f"make it longer with: trfmoe simulate --run-dir {where} --set rounds.num_rounds=N" in again["shown"]
    longer = trfmoe(capsys, "simulate", "--run-dir", where, "--set", "rounds.num_rounds=4")
    assert (longer["outcome"], longer["rounds"], longer["run_dir"]) == ("completed", 4, where)
    told = read_events(finished.events_path)
    (changed,) = of_kind(told, "recipe_changed")
    assert "settings changed after round 2: rounds.num_rounds from 2 to 4" in changed["text"]
    assert "learning rate was 0.0001 and goes on at 0.000" in changed["text"] and "rises again" in changed["text"]
    assert "over 8 steps a node" in changed["text"] and changed["text"] in longer["shown"]
    rates = {event["round"]: event["learning_rate"] for event in of_kind(told, "node_reply") if event.get("tokens")}
    assert rates[2] == pytest.approx(1e-4) and rates[3] > 2e-4 and rates[4] == pytest.approx(1e-4)
    assert verify_run(RunFolder.open(finished.path)).problems == []


def test_it_is_not_made_shorter_nor_another_run(finished: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    where, before = str(finished.path), finished.events_path.read_bytes()
    for setting in ("rounds.num_rounds=1", "rounds.local_steps=3", "vote=mean"):
        refused = trfmoe(capsys, "simulate", "--run-dir", where, "--set", setting)
        assert "was started with another recipe" in refused["error"], setting
    assert "no recipe; give one" in trfmoe(capsys, "simulate")["error"]
    assert finished.events_path.read_bytes() == before


def test_ctrl_c_says_what_is_saved_and_how_to_go_on(
    finished: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> RunOutcome:
        raise KeyboardInterrupt

    monkeypatch.setattr(federated_run, "simulate_rounds", interrupted)
    where = str(finished.path)
    told = trfmoe(capsys, "simulate", "--run-dir", where, "--set", "rounds.num_rounds=9")
    assert (told["outcome"], told["saved"], told["exit_code"]) == ("interrupted", 2, 130)
    assert "stopped; everything up to round 2 is saved" in told["shown"]
    assert f"go on after round 2 with: trfmoe simulate --run-dir {where}" in told["shown"]
    assert "error" not in told["shown"]


def test_without_a_run_a_model_is_taken_from_the_latest_that_has_trained(
    finished: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished.path.parents[1])
    new = RunFolder.create(Path("runs"), finished.recipe)
    told = trfmoe(capsys, "generate", "--prompt", "a", "--max-tokens", "1")
    assert told["run_dir"] == str(finished.path)
    assert f"the latest that has trained; {new.path.name} is newer and has not" in told["shown"]
