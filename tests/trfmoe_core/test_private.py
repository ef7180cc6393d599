"""What holds an owner's text can be read by its owner alone, whatever the umask and whatever lay there before."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from clients.worker import Worker
from tests.federation import run_recipe
from trfmoe_core.config import Recipe
from trfmoe_core.config.data import DataConfig
from trfmoe_core.data.prepare.corpus_cache import prepare_corpus
from trfmoe_core.data.tokenizers import load_tokenizer
from trfmoe_core.errors import RunFolderError
from trfmoe_core.private import private_files, private_folder, tighten
from trfmoe_core.training.local_state import save_state


@pytest.fixture(params=[0o000, 0o022])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def wide(*roots: Path) -> list[str]:
    """Everything at or below the folders that somebody else may do something with."""
    found = [path for root in roots for path in (root, *root.rglob("*"))]
    assert len(found) > len(roots)
    return [f"{path} {path.stat().st_mode:o}" for path in found if path.lstat().st_mode & 0o077]


def test_new_files_are_private_and_the_umask_comes_back(umask: int, tmp_path: Path) -> None:
    with private_files():
        (tmp_path / "a" / "b").mkdir(parents=True)
        (tmp_path / "a" / "b" / "text").write_text("secret")
    assert not wide(tmp_path / "a")
    (tmp_path / "open").write_text("as ever")
    assert (tmp_path / "open").stat().st_mode & 0o777 == 0o666 & ~umask


def test_wide_folders_are_tightened_and_their_parents_left(
    tmp_path: Path, umask: int, caplog: pytest.LogCaptureFixture
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o755)
    (outside / "theirs").write_text("x")
    (tmp_path / "own" / "deep").mkdir(parents=True)
    (tmp_path / "own" / "deep" / "text").write_text("secret")
    (tmp_path / "own" / "link").symlink_to(outside)
    before = [path.stat().st_mode for path in (tmp_path, outside, outside / "theirs")]
    private_folder(tmp_path / "own")
    assert not [path for path in wide(tmp_path / "own") if "link" not in path]
    assert [path.stat().st_mode for path in (tmp_path, outside, outside / "theirs")] == before
    assert f"{tmp_path / 'own'}: others could read it" in caplog.text
    caplog.clear()
    private_folder(tmp_path / "own")
    assert caplog.text == ""
    tighten([tmp_path / "not there"])


def test_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = private_folder(tmp_path / "state")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(RunFolderError, match="belongs to user"):
        private_folder(folder)


def test_a_partial_state_file_of_a_killed_process_does_not_keep_its_mode(tmp_path: Path, umask: int) -> None:
    (tmp_path / "round.safetensors.partial").write_bytes(b"")
    (tmp_path / "round.safetensors.partial").chmod(0o666)
    save_state(tmp_path / "round.safetensors", {"w": torch.ones(3)}, {})
    assert (tmp_path / "round.safetensors").stat().st_mode & 0o777 == 0o600


def test_a_cache_of_an_earlier_release_is_tightened(tmp_path: Path, umask: int) -> None:
    (tmp_path / "text.txt").write_text("one line of text.\n\n" * 200)
    cache = tmp_path / "cache"
    prepare_corpus([str(tmp_path / "text.txt")], DataConfig(), load_tokenizer("byte"), cache)
    cache.chmod(0o755)
    for path in cache.rglob("*"):
        path.chmod(0o777 if path.is_dir() else 0o666)
    prepare_corpus([str(tmp_path / "text.txt")], DataConfig(), load_tokenizer("byte"), cache)
    assert not wide(*cache.iterdir())
    assert cache.stat().st_mode & 0o777 == 0o755  # it may be the user's own


def test_all_that_a_node_keeps_is_private(tmp_path: Path, umask: int, tiny_recipe: Callable[..., Recipe]) -> None:
    transport = {"updates": "int8", "difference": "bfloat16"}
    recipe = tiny_recipe(rounds={"num_rounds": 2, "local_steps": 2, "nodes_deadline_s": 1.0}, transport=transport)
    folder, _ = run_recipe(recipe)
    kept = {path.name.partition("-")[0] for path in (tmp_path / "state").rglob("*.safetensors")}
    assert {"round", "reply.safetensors"} <= kept
    assert not wide(tmp_path / "state", tmp_path / "cache")
    # The run folder holds no owner's text, and is for whoever the operator lets see it.
    assert (folder.path / "report.html").stat().st_mode & 0o777 == 0o666 & ~umask
    # What an earlier release left wide is narrowed, whatever run it belongs to; the owner's own folder stays.
    for path in (tmp_path / "state", *(tmp_path / "state").rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    Worker(recipe.nodes[0], recipe.for_nodes().model_dump(mode="json")).describe("another")
    assert not [path for path in wide(*(tmp_path / "state").iterdir()) if "/bob" not in path and "/cyd" not in path]
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o777
