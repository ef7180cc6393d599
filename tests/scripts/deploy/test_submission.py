"""A run whose server app is lost goes on in a new one; one that ends says how; one that never gets on is given up."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from scripts.deploy import submission as module
from scripts.deploy.submission import MAX_LOSSES, Submission
from scripts.processes.control import RunState
from server.run_folder.folder import RunFolder
from server.run_folder.journal import Journal
from tests.places import ROOT
from trfmoe_core.config import Recipe
from trfmoe_core.errors import RunError

HOLD = """
import sys
from pathlib import Path
from server.run_folder.folder import RunFolder
with RunFolder.open(Path(sys.argv[1])).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


class FakeControl:
    """A SuperLink that takes every run, when it is there."""

    def __init__(self) -> None:
        self.started: list[dict[str, str]] = []
        self.stopped: list[int] = []
        self.away = False
        self.status = ("finished:completed", "")

    def nodes(self) -> dict[str, str]:
        if self.away:
            raise RunError("away")
        return {}

    def start(self, app: Path, settings: dict[str, str]) -> int:
        self.nodes()
        self.started.append(settings)
        return len(self.started)

    def stop(self, run_id: int) -> None:
        self.stopped.append(run_id)

    def runs(self) -> dict[int, RunState]:
        return {len(self.started): RunState(*self.status)}

    def stream_log(self, run_id: int, after: float) -> Iterator[tuple[str, float]]:
        yield f"log of run {run_id}\n", after


class Clock:
    """Time that passes with every look."""

    def __init__(self) -> None:
        self.time_s = 0.0

    def monotonic(self) -> float:
        self.time_s += 0.5
        return self.time_s

    def sleep(self, seconds: float) -> None:
        self.time_s += seconds


class App:
    """A server app, as far as it is seen from outside: it holds the run folder's lock."""

    def __init__(self, folder: RunFolder) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(folder.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"held\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def scene(tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.setattr(module, "time", Clock())
    recipe = tiny_recipe()
    folder = RunFolder.create(Path(recipe.run_root), recipe)
    told: list[str] = []
    control = FakeControl()
    return SimpleNamespace(
        submission=Submission(folder, control, told.append),  # type: ignore[arg-type]
        control=control,
        folder=folder,
        journal=Journal(folder.events_path),
        told=told,
    )


def looks(scene: SimpleNamespace, count: int) -> bool:
    return any(scene.submission.finished() for _ in range(count))


def test_a_lost_app_is_replaced_and_the_old_run_stopped(scene: SimpleNamespace) -> None:
    scene.submission.submit()
    assert scene.control.started == [
        {"recipe": str(scene.folder.path / "recipe.yaml"), "run-dir": str(scene.folder.path)}
    ]
    app = App(scene.folder)
    assert not looks(scene, 5)
    scene.journal.append("round_committed", round=1)
    app.kill()
    assert not looks(scene, 8)
    assert scene.control.stopped == [1]
    assert len(scene.control.started) == 2
    assert scene.told == ["the server app was lost; going on after round 1 in a new run"]


def test_a_run_that_the_operator_stopped_does_not_go_on(scene: SimpleNamespace) -> None:
    scene.submission.submit()
    app = App(scene.folder)
    assert not looks(scene, 3)
    scene.control.status = ("finished:stopped", "")
    app.kill()
    assert looks(scene, 8)
    assert scene.submission.status() == ("finished:stopped", "")
    assert len(scene.control.started) == 1


def test_it_waits_for_the_superlink_to_come_back(scene: SimpleNamespace) -> None:
    scene.submission.submit()
    app = App(scene.folder)
    assert not looks(scene, 3)
    scene.control.away = True
    app.kill()
    assert not looks(scene, 20)
    assert scene.told == ["the server app was lost; waiting for the SuperLink"]
    scene.control.away = False
    assert not looks(scene, 1)
    assert len(scene.control.started) == 2


def test_an_app_that_never_gets_on_is_given_up(scene: SimpleNamespace) -> None:
    scene.submission.submit()
    for _ in range(MAX_LOSSES + 1):
        app = App(scene.folder)
        assert not looks(scene, 3)
        app.kill()
        ended = looks(scene, 8)
    assert ended
    status, details = scene.submission.status()
    assert status == "lost"
    assert "without a round committed" in details
    assert len(scene.control.started) == MAX_LOSSES + 1


@pytest.mark.parametrize("status", ["finished:completed", "finished:failed"])
def test_an_end_in_the_journal_is_the_end(scene: SimpleNamespace, status: str) -> None:
    scene.submission.submit()
    app = App(scene.folder)
    looks(scene, 2)
    scene.journal.append("run_finished", outcome=status.partition(":")[2])
    scene.control.status = (status, "told")
    app.kill()
    assert looks(scene, 8)
    assert scene.submission.status() == (status, "told")
    assert len(scene.control.started) == 1


def test_an_earlier_end_in_the_journal_is_not(scene: SimpleNamespace) -> None:
    scene.journal.append("run_finished", outcome="failed")
    scene.submission.submit()
    app = App(scene.folder)
    looks(scene, 2)
    app.kill()
    assert not looks(scene, 8)
    assert len(scene.control.started) == 2


def test_an_app_that_never_starts_is_tried_a_few_times(scene: SimpleNamespace) -> None:
    scene.submission.submit()
    scene.control.status = ("finished:failed", "no module")
    assert looks(scene, 200)
    assert len(scene.control.started) == MAX_LOSSES + 1
    assert "did not start (no module)" in scene.told[0]
    assert scene.submission.status()[0] == "lost"
