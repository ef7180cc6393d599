"""Verification names what was changed behind the journal's back."""

import json
from collections.abc import Callable

import pytest
from safetensors.torch import load_file, save_file

from server.recorder import last_checkpoint
from server.run_folder import RunFolder
from server.verify import verify_run
from tests.federation import run_recipe
from trfmoe_core.config import Recipe
from trfmoe_core.errors import RunFolderError


@pytest.fixture
def folder(tiny_recipe: Callable[..., Recipe]) -> RunFolder:
    rounds = {"num_rounds": 2, "local_steps": 1, "nodes_deadline_s": 5.0, "reply_deadline_s": 60.0}
    return run_recipe(tiny_recipe(rounds=rounds))[0]


def test_an_untouched_run_is_whole(folder: RunFolder) -> None:
    found = verify_run(folder)
    assert (found.problems, found.checkpoints) == ([], [1, 2])
    assert found.events > 10


@pytest.mark.parametrize("number", [0, 3, 7])
def test_a_changed_removed_or_inserted_entry_is_named(folder: RunFolder, number: int) -> None:
    lines = folder.events_path.read_bytes().splitlines(keepends=True)
    changed = json.loads(lines[number]) | {"time": 0}
    for wrong, first in (
        ([*lines[:number], json.dumps(changed).encode() + b"\n", *lines[number + 1 :]], number + 1),
        ([*lines[:number], *lines[number + 1 :]], number),
        ([*lines[:number], lines[number], *lines[number:]], number + 1),
    ):
        folder.events_path.write_bytes(b"".join(wrong))
        assert verify_run(folder).problems[0].startswith(f"entry {first} ")


def test_changed_weights_and_recipes_are_found(folder: RunFolder) -> None:
    path = folder.checkpoints_path / "round-000002" / "weights.safetensors"
    weights = load_file(path)
    weights["head.weight"][0, 0] += 1e-6
    save_file(weights, path)
    folder.recipe = folder.recipe.model_copy(update={"seed": 99})
    problems = verify_run(folder).problems
    assert problems[0] == "recipe.yaml is not the recipe that entry 0 started with"
    assert "round-000002: the weights of round 2 do not have the digest that was committed" in problems[1]


@pytest.mark.parametrize("name", ["outer.safetensors", "state.json"])
def test_a_single_bit_of_a_checkpoint_is_missed(folder: RunFolder, name: str) -> None:
    path = folder.checkpoints_path / "round-000002" / name
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    found = [*verify_run(folder).problems]
    assert len(found) == 1
    assert "round-000002" in found[0]
    with pytest.raises(RunFolderError, match="round-000002"):
        last_checkpoint(folder)
