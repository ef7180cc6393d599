"""Verification names what was changed behind the journal's back, and says what it cannot see."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from torch import Tensor

from server.run_folder.checkpoints import checkpoint_rounds
from server.run_folder.folder import RunFolder
from server.run_folder.journal_entries import GENESIS, line_hash
from server.run_folder.recorder import last_checkpoint
from server.run_folder.verify import verify_run
from tests.federation import run_recipe
from trfmoe_core.config import Recipe
from trfmoe_core.errors import RunFolderError

ROUNDS = {"num_rounds": 4, "local_steps": 1, "nodes_deadline_s": 1.0, "reply_deadline_s": 60.0}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for one run, which the tests copy."""
    return tmp_path_factory.mktemp("made")


@pytest.fixture
def folder(tiny_recipe: Callable[..., Recipe], made: Path, tmp_path: Path) -> RunFolder:
    if not (made / "run").exists():
        run = run_recipe(tiny_recipe(rounds=ROUNDS))[0]
        shutil.copytree(run.path, made / "run")
    shutil.copytree(made / "run", tmp_path / "copy")
    return RunFolder.open(tmp_path / "copy")


def rechained(folder: RunFolder, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """Writes the journal anew with changed events, with numbers and hashes as they must be."""
    events = change([json.loads(line) for line in folder.events_path.read_bytes().splitlines()])
    lines, prev = [], GENESIS
    for number, event in enumerate(events):
        lines.append(json.dumps({**event, "seq": number, "prev": prev}, separators=(",", ":")).encode())
        prev = line_hash(lines[-1])
    folder.events_path.write_bytes(b"".join(line + b"\n" for line in lines))


def kind(name: str) -> Callable[[dict[str, Any]], bool]:
    return lambda event: event["event"] == name


def test_an_untouched_run_is_whole(folder: RunFolder) -> None:
    found = verify_run(folder)
    lines = folder.events_path.read_bytes().splitlines()
    assert (found.problems, found.notes, found.finished) == ([], [], True)
    assert found.checkpoints[-2:] == [3, 4]
    assert (found.events, found.head) == (len(lines), line_hash(lines[-1]))
    assert json.loads(lines[-1])["event"] == "run_finished"


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
    path = folder.checkpoints_path / "round-000004" / "weights.safetensors"
    weights = load_file(path)
    weights["head.weight"][0, 0] += 1e-6
    save_file(weights, path)
    folder.write_recipe(folder.recipe.model_copy(update={"seed": 99}))
    problems = verify_run(folder).problems
    assert problems[0] == "recipe.yaml is not the recipe that entry 0 started with"
    assert "round-000004: the weights of round 4 do not have the digest that was committed" in problems[1]


@pytest.mark.parametrize("name", ["outer.safetensors", "state.json"])
def test_a_single_bit_of_a_checkpoint_is_missed(folder: RunFolder, name: str) -> None:
    path = folder.checkpoints_path / "round-000004" / name
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    found = [*verify_run(folder).problems]
    assert len(found) == 1
    assert "round-000004" in found[0]
    with pytest.raises(RunFolderError, match="round-000004"):
        last_checkpoint(folder)


def test_a_missing_checkpoint_is_named(folder: RunFolder) -> None:
    shutil.rmtree(folder.checkpoints_path / "round-000003")
    assert verify_run(folder).problems[0].startswith("round 3 has no checkpoint, and entry ")
    shutil.rmtree(folder.checkpoints_path)
    assert len(verify_run(folder).problems) >= 2


def test_a_cut_tail_is_unfinished_or_lacks_what_its_checkpoints_need(folder: RunFolder) -> None:
    lines = folder.events_path.read_bytes().splitlines(keepends=True)
    for count in range(1, len(lines)):
        folder.events_path.write_bytes(b"".join(lines[:count]))
        found = verify_run(folder)
        assert not found.finished
        commits = sum(b'"event":"round_committed"' in line for line in lines[:count])
        assert bool(found.problems) == (commits < 4), (count, found.problems)
        head = verify_run(folder, head=line_hash(lines[-1][:-1]))
        assert "no entry has this hash" in head.problems[-1]


def test_an_empty_or_missing_journal_is_a_problem(folder: RunFolder) -> None:
    folder.events_path.write_bytes(b"")
    assert "holds no entry" in verify_run(folder).problems[0]
    folder.events_path.unlink()
    assert "holds no entry" in verify_run(folder).problems[0]
    folder.events_path.mkdir()
    assert "no plain file" in verify_run(folder).problems[0]


def test_a_line_that_a_crash_cut_is_a_note_and_after_the_end_a_problem(folder: RunFolder) -> None:
    whole = folder.events_path.read_bytes()
    folder.events_path.write_bytes(whole + b'{"seq":')
    assert "follows the end of the run" in verify_run(folder).problems[0]
    folder.events_path.write_bytes(whole[:-30])
    found = verify_run(folder)
    assert (found.problems, found.finished) == ([], False)
    assert "a crash leaves that" in found.notes[0]


@pytest.mark.parametrize(
    ("name", "field", "value", "named"),
    [
        ("run_finished", "digest", "0" * 64, "ends the run with another digest"),
        ("run_finished", "rounds", 7, "ends the run with another rounds"),
        ("round_committed", "tokens", 1, "differ in tokens"),
        ("round_committed", "digest", "0" * 64, "do not have the digest"),
        ("round_committed", "round", "four", "commits no round"),
        ("round_committed", "round", 2, "commits round 2 after round 3"),
        ("round_committed", "kept", [1, 2, 3, 4], "has no checkpoint"),
        ("run_started", "recipe_hash", "0" * 64, "recipe.yaml is not the recipe"),
        ("run_started", "tokenizer_fingerprint", "0" * 64, "tokenizer: is not what"),
        ("run_started", "imported_weights", "0" * 64, "imported.safetensors: is missing"),
        ("run_started", "witness_salt", "0" * 64, "witness.salt: is not what"),
    ],
)
def test_a_last_entry_edited_with_its_chain_is_found_where_it_shows(
    folder: RunFolder, name: str, field: str, value: object, named: str
) -> None:
    def change(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        [event for event in events if kind(name)(event)][-1][field] = value
        return events

    rechained(folder, change)
    assert any(named in problem for problem in verify_run(folder).problems)


def test_another_tokenizer_is_found(folder: RunFolder) -> None:
    path = folder.tokenizer_path / "tokenizer.json"
    raw = json.loads(path.read_text())
    vocab = raw["model"]["vocab"]
    first, second = list(vocab)[:2]
    vocab[first], vocab[second] = vocab[second], vocab[first]
    path.write_text(json.dumps(raw))
    assert verify_run(folder).problems[0].startswith("tokenizer's files: is not what")
    shutil.rmtree(folder.tokenizer_path)
    assert "tokenizer: the run's own copy is missing" in verify_run(folder).problems


def test_a_run_of_an_earlier_release_is_whole_and_says_what_was_not_checked(folder: RunFolder) -> None:
    new = ("tokenizer_fingerprint", "tokenizer_files", "imported_weights", "kept", "files")

    def older(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{key: value for key, value in event.items() if key not in new} for event in events]

    rechained(folder, older)
    found = verify_run(folder)
    assert found.problems == []
    assert len(found.notes) == 4


def test_a_recipe_of_a_release_that_knew_fewer_keys_still_fits(folder: RunFolder) -> None:
    import yaml

    path = folder.path / "recipe.yaml"
    raw = yaml.safe_load(path.read_text())
    del raw["witness"]
    path.write_text(yaml.safe_dump(raw, sort_keys=False))

    def older(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for event in filter(kind("run_started"), events):
            event["recipe_hash"] = folder.recipe_digest()
        return events

    rechained(folder, older)
    assert verify_run(RunFolder.open(folder.path)).problems == []


def test_the_checkpoint_of_a_round_that_did_not_end_is_a_note(folder: RunFolder) -> None:
    lines = folder.events_path.read_bytes().splitlines(keepends=True)
    last = max(n for n, line in enumerate(lines) if b'"event":"round_committed"' in line)
    folder.events_path.write_bytes(b"".join(lines[:last]))
    found = verify_run(folder)
    # Round 3 keeps rounds 2 and 3 besides the best; the commit of round 4 has removed round 2.
    assert [note for note in found.notes if "did not end" in note]
    assert all("round 2 has no checkpoint" in problem for problem in found.problems)


def renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {("embedding.weights" if name == "embedding.weight" else name): value for name, value in tensors.items()}


def turned(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Another shape with the same values in the same order."""
    return {n: v.reshape(v.shape[::-1]) if n == "embedding.weight" else v for n, v in tensors.items()}


def widened(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Other values that are the same once they are rounded to float32."""
    return {name: value.double() * (1 + 1e-12) for name, value in tensors.items()}


@pytest.mark.parametrize("change", [renamed, turned, widened])
def test_weights_under_another_name_shape_or_type_are_found(
    folder: RunFolder, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]
) -> None:
    path = folder.checkpoints_path / "round-000004" / "weights.safetensors"
    save_file(change(load_file(path)), path)
    problems = verify_run(folder).problems
    assert len(problems) == 1
    assert "weights.safetensors (header) of round 4 do not have the digest that was committed" in problems[0]
    with pytest.raises(RunFolderError, match="do not have the digest"):
        last_checkpoint(folder)


def test_a_run_that_failed_between_a_checkpoint_and_its_entry_is_whole(folder: RunFolder) -> None:
    """As when the disk was full for the one and not for the other."""

    def cut(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        last = max(n for n, event in enumerate(events) if event["event"] == "round_committed")
        return [*events[:last], {"time": 0, "event": "run_finished", "outcome": "failed", "reason": "disk"}]

    rechained(folder, cut)
    found = verify_run(RunFolder(folder.path, folder.recipe))
    assert [problem for problem in found.problems if "no round_committed" in problem] == []
    assert any("round 4 has a checkpoint and no round_committed entry yet" in note for note in found.notes)


@pytest.mark.parametrize("change", [{"files": ["x"]}, {"files": 3}, {"round": "x"}, {"digest": None}])
def test_entries_without_what_their_kind_has_are_told_in_a_line(folder: RunFolder, change: dict[str, Any]) -> None:
    rechained(folder, lambda events: [{**e, **change} if e["event"] == "round_committed" else e for e in events])
    assert verify_run(RunFolder(folder.path, folder.recipe)).problems
    with pytest.raises(RunFolderError):
        last_checkpoint(RunFolder(folder.path, folder.recipe))


def test_a_folder_with_almost_the_name_of_a_checkpoint_is_none(folder: RunFolder) -> None:
    (folder.checkpoints_path / "round-0000001").mkdir()
    assert 1 not in checkpoint_rounds(folder.checkpoints_path)
    assert verify_run(folder).problems == []
