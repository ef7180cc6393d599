"""State on disk: whole or not there."""

from pathlib import Path

import pytest
import torch

from trfmoe_core.errors import RunFolderError
from trfmoe_core.training import local_state
from trfmoe_core.training.local_state import load_state, save_state


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 4).T, "b": torch.tensor(7), "c": torch.ones(2, dtype=torch.bfloat16)}
    meta = {"cursor": {"epoch": 1, "window": 5}, "name": "ada", "x": [1.5, None]}
    path = tmp_path / "deep" / "state.safetensors"
    save_state(path, tensors, meta)
    loaded, loaded_meta = load_state(path)
    assert loaded_meta == meta and loaded.keys() == tensors.keys()
    assert all(
        torch.equal(loaded[name], tensors[name]) and loaded[name].dtype == tensors[name].dtype for name in tensors
    )
    assert [entry.name for entry in path.parent.iterdir()] == ["state.safetensors"]


def test_a_crash_while_writing_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.safetensors"
    save_state(path, {"a": torch.zeros(2)}, {"round": 1})

    def half_written(_tensors: object, target: Path, **_: object) -> None:
        target.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(local_state, "save_file", half_written)
    with pytest.raises(RunFolderError, match="disk full"):
        save_state(path, {"a": torch.ones(2)}, {"round": 2})
    tensors, meta = load_state(path)
    assert meta == {"round": 1} and not tensors["a"].any()


@pytest.mark.parametrize("content", [None, b"", b"not a tensor file at all"])
def test_missing_or_damaged_files_are_named(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RunFolderError, match=r"state\.safetensors"):
        load_state(path)
