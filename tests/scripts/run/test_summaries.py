"""Runs as `trfmoe runs` shows them: from a federation of one process."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts.main import main
from scripts.run.run_folders import new_run
from server.app import run
from tests.federation import grid_of
from trfmoe_core.config import Recipe


def trfmoe(capsys: pytest.CaptureFixture[str], *given: str, code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ending:
        main(["runs", *given, "--json"])
    told = capsys.readouterr()
    assert ending.value.code == code, told
    found: dict[str, Any] = json.loads(told.out.strip().splitlines()[-1])
    return found


def test_runs_are_listed_compared_and_cleaned(
    tiny_recipe: Callable[..., Recipe], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = []
    for rounds in (1, 2):
        recipe = tiny_recipe()
        nodes = [node.model_copy(update={"state_dir": None}) for node in recipe.nodes]
        changed = recipe.rounds.model_copy(update={"num_rounds": rounds})
        folders.append(new_run(recipe.model_copy(update={"nodes": nodes, "rounds": changed})))
    run(grid_of(folders[0]), folders[0])
    one, two = (str(folder.path) for folder in folders)
    listed = trfmoe(capsys, "list", str(tmp_path / "runs"))["runs"]
    assert [(each["outcome"], each["done"], each["planned"]) for each in listed] == [
        ("completed", 1, 1),
        ("not begun", 0, 0),
    ]
    assert listed[0]["state_size"] > 100_000
    compared = trfmoe(capsys, "compare", one, two)["recipe"]
    assert compared == {"rounds.num_rounds": {"tiny-001": 1, "tiny-002": 2}}, "the folders' own paths are no difference"
    before = folders[0].events_path.read_bytes()
    freed = trfmoe(capsys, "clean", one)["freed"][one]
    assert 0 < freed <= listed[0]["state_size"]
    shown = trfmoe(capsys, "show", one)
    assert shown["state_size"] < 10_000
    assert folders[0].events_path.read_bytes() == before
    assert list(folders[0].checkpoints_path.glob("round-*/weights.safetensors"))
    with folders[0].lock():
        assert trfmoe(capsys, "show", one)["outcome"] == "running"
    trfmoe(capsys, "compare", one, code=2)
    trfmoe(capsys, "list", str(tmp_path / "nowhere"), code=2)
