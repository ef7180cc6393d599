"""A scenario strikes while the victim trains, although its client runs between messages too."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from clients.settings import state_folder
from scripts.process_drill.scene import Scene
from scripts.run.run_folders import new_run
from trfmoe_core.config import Recipe

STAYS = ["-c", "import time; print('ready', flush=True); time.sleep(60)", "clientapp"]


@pytest.fixture
def scene(tiny_recipe: Callable[..., Recipe]) -> Iterator[Scene]:
    """A run whose nodes have one client for all messages; the SuperNode of each is this process."""
    folder = new_run(tiny_recipe())
    services = {node.name: SimpleNamespace(pid=os.getpid()) for node in folder.recipe.nodes}
    with subprocess.Popen([sys.executable, *STAYS], stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"ready\n"
        yield Scene(SimpleNamespace(services=services), folder, [{"event": "run_started", "run_id": "r"}])  # type: ignore[arg-type]
        client.kill()


def note(scene: Scene, name: str, number: int, step: int) -> None:
    node = next(node for node in scene.folder.recipe.nodes if node.name == name)
    folder = state_folder(node, "r")
    folder.mkdir(parents=True, exist_ok=True)
    told = {"round": number, "step": step, "steps": 60, "time": 0.0}
    (folder / "progress.json").write_text(json.dumps(told))


def waits(script: Iterator[None]) -> bool:
    return next(script, "over") is None


def test_the_client_of_an_earlier_round_is_no_sign_of_training(scene: Scene) -> None:
    script = scene.until_training()
    assert scene.clients() and waits(script)
    for number, step in ((1, 30), (1, 60), (2, 60)):
        note(scene, scene.victim, number, step)
        assert waits(script), (number, step)
    note(scene, scene.victim, 2, 1)
    assert not waits(script)


def test_a_node_is_free_when_its_training_is_over_and_not_when_its_client_ends(scene: Scene) -> None:
    note(scene, scene.victim, 2, 30)
    script = scene.until_free()
    assert waits(script)
    note(scene, scene.victim, 2, 60)
    assert scene.clients() and not waits(script)


def test_a_node_without_a_client_does_not_train(scene: Scene) -> None:
    note(scene, scene.victim, 2, 30)
    assert scene.training(scene.victim) is not None
    for client in scene.clients():
        client.kill()
        client.wait()
    assert scene.training(scene.victim) is None
