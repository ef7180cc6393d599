"""The whole way in one process: real ServerApp, strategy and ClientApp."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from clients.app import app as client_app
from scripts.experiments.in_process import InProcessGrid
from server.app import run
from server.run_folder.checkpoints import checkpoint_rounds
from server.run_folder.folder import RunFolder
from server.run_folder.journal import read_events
from server.run_folder.recorder import best_round, last_checkpoint
from tests.federation import of_kind, run_recipe
from trfmoe_core.config import Recipe
from trfmoe_core.errors import RunError, RunFolderError


def test_three_nodes_learn_and_agree(tiny_recipe: Callable[..., Recipe]) -> None:
    folder, events = run_recipe(tiny_recipe())
    finished = of_kind(events, "run_finished")[0]
    assert finished["outcome"] == "completed"
    assert finished["rounds"] == 3
    bits = [event["bits_per_byte"] for event in of_kind(events, "evaluated")]
    assert len(bits) == 4
    assert bits[-1] < bits[0]
    for event in of_kind(events, "round_committed"):
        assert event["outcomes"] == {"unanimous": 2 * 4 + 1}
        assert event["outvoted"] == {}
    checkpoint = last_checkpoint(folder)
    assert checkpoint is not None
    assert checkpoint.state["digest"] == finished["digest"]
    assert set(checkpoint_rounds(folder.checkpoints_path)) == {2, 3}
    assert best_round(folder) == finished["best_round"]


def test_the_same_seed_gives_the_same_weights(tiny_recipe: Callable[..., Recipe]) -> None:
    digests = [of_kind(run_recipe(tiny_recipe())[1], "run_finished")[0]["digest"] for _ in range(2)]
    assert digests[0] == digests[1]
    other = of_kind(run_recipe(tiny_recipe(seed=1))[1], "run_finished")[0]["digest"]
    assert other != digests[0]


def test_a_disk_too_full_for_the_report_does_not_hide_what_ended_the_run(
    tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("server.app.write_report", full)
    recipe = tiny_recipe(rounds={"nodes_deadline_s": 0.1, "reply_deadline_s": 0.1})
    folder = RunFolder.create(Path(recipe.run_root), recipe)
    with pytest.raises(RunError, match="0 of 3 nodes"):
        run(InProcessGrid(client_app, [], {}), folder)


def test_an_error_of_the_coordinators_disk_is_the_end_that_the_journal_records(
    tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: RunFolder) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(folder.path / "stop"))

    monkeypatch.setattr("server.app.forget_stop", full)
    recipe = tiny_recipe()
    folder = RunFolder.create(Path(recipe.run_root), recipe)
    with pytest.raises(RunFolderError, match=r"stop: No space left on device; .*--resume"):
        run(InProcessGrid(client_app, [], {}), folder)
    finished = of_kind(read_events(folder.events_path), "run_finished")[0]
    assert finished["outcome"] == "failed" and "No space left" in finished["reason"]
