"""Run folders and checkpoints: numbered, locked, whole."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from server.run_folder.checkpoints import (
    checkpoint_path,
    checkpoint_rounds,
    keep_only,
    load_checkpoint,
    save_checkpoint,
)
from server.run_folder.folder import RunFolder
from tests.places import ROOT
from trfmoe_core.config import Recipe
from trfmoe_core.errors import RunFolderError


def test_folders_are_numbered_and_the_newest_is_found(tmp_path: Path) -> None:
    recipe = Recipe(name="r", seed=3)
    assert RunFolder.latest(tmp_path / "runs", "r") is None
    first, second = (RunFolder.create(tmp_path / "runs", recipe) for _ in range(2))
    assert [first.path.name, second.path.name] == ["r-001", "r-002"]
    latest = RunFolder.latest(tmp_path / "runs", "r")
    assert latest is not None
    assert latest.path == second.path
    assert latest.recipe == recipe
    with pytest.raises(RunFolderError, match="not a run folder"):
        RunFolder.open(tmp_path)


def test_only_one_process_holds_a_folder(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, Recipe())
    code = (
        "import sys; from pathlib import Path; from server.run_folder.folder import RunFolder\n"
        "with RunFolder.open(Path(sys.argv[1])).lock(): print('held', flush=True); sys.stdin.read()"
    )
    root = ROOT
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(folder.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(RunFolderError, match=f"process {holder.pid} is writing"), folder.lock(patience_s=0):
            pass
        holder.kill()
        holder.wait()
        with folder.lock(patience_s=5):
            pass
    finally:
        holder.kill()
        holder.wait()


def test_a_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(RunFolderError, match="run_root"):
        RunFolder.create(tmp_path / "runs", Recipe())


def test_checkpoints_come_back_and_old_ones_go(tmp_path: Path) -> None:
    for number in range(1, 5):
        save_checkpoint(tmp_path, number, {"w": torch.full((2,), float(number))}, {}, {"round": number})
    save_checkpoint(tmp_path, 4, {"w": torch.full((2,), 40.0)}, {"m": torch.ones(1)}, {"round": 4})
    keep_only(tmp_path, {2, 4})
    assert checkpoint_rounds(tmp_path) == [2, 4]
    checkpoint = load_checkpoint(tmp_path, 4)
    assert float(checkpoint.weights["w"][0]) == 40.0
    assert list(checkpoint.optimizer) == ["m"]


def test_a_broken_checkpoint_is_an_error_with_its_path(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, {"w": torch.ones(9)}, {}, {})
    path = checkpoint_path(tmp_path, 1) / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(RunFolderError, match="round-000001"):
        load_checkpoint(tmp_path, 1)


def test_a_write_that_fails_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, {"w": torch.ones(1)}, {}, {"kept": True})
    with pytest.raises(TypeError):
        save_checkpoint(tmp_path, 1, {"w": torch.zeros(1)}, {}, {"not json": object()})
    assert load_checkpoint(tmp_path, 1).state == {"kept": True}
    assert [entry.name for entry in tmp_path.iterdir()] == ["round-000001"]
