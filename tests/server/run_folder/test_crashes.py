"""A coordinator that dies between any two operations on files leaves a run that opens, goes on and verifies."""

import contextlib
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from server.run_folder import checkpoints as checkpoint_module
from server.run_folder.checkpoints import checkpoint_rounds, save_checkpoint
from server.run_folder.folder import RunFolder
from server.run_folder.provenance import provenance
from server.run_folder.recorder import RunRecorder, committed_rounds, last_checkpoint
from server.run_folder.verify import verify_run
from trfmoe_core import atomic
from trfmoe_core.atomic import new_folder, sweep
from trfmoe_core.blocks import BlockLayout, blocks_digest
from trfmoe_core.config import Recipe
from trfmoe_core.data.tokenizers.byte import ByteTokenizer
from trfmoe_core.errors import RunFolderError

OPERATIONS = ("write", "fsync", "ftruncate", "replace", "rename", "mkdir", "unlink", "rmdir")
LAST = 3
RECIPE = Recipe(name="r")
LAYOUT = BlockLayout.of({"head.weight": torch.zeros(2, 2)})


class DeadError(BaseException):
    """The process is gone: from here on no operation reaches the disk."""


class Life:
    """Lets a process live for so many operations on files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, length: int, can_exchange: bool) -> None:
        self.left = length
        for name in OPERATIONS:
            monkeypatch.setattr(os, name, self._mortal(getattr(os, name)))
        monkeypatch.setattr(checkpoint_module, "save_file", self._mortal(checkpoint_module.save_file))
        exchange = atomic._exchanged if can_exchange else lambda one, other: False
        monkeypatch.setattr(atomic, "_exchanged", self._mortal(exchange))

    def _mortal(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if self.left <= 0:
                raise DeadError
            self.left -= 1
            return real(*arguments, **named)

        return call


def go_on(path: Path, last: int = LAST) -> None:
    """Opens a run, or begins it, and commits what is left of its rounds."""
    folder = RunFolder(path, RECIPE)
    recorder = RunRecorder(folder, LAYOUT)
    recorder.record("run_started", run_id="r", recipe_hash=folder.recipe_digest())
    for number in range(max(committed_rounds(folder), default=0) + 1, last + 1):
        blocks = LAYOUT.gather({"head.weight": torch.full((2, 2), float(number))})
        summary = {"tokens": number}
        state = {"digest": blocks_digest(blocks), "best": {"round": 0}, "summary": summary}
        recorder.commit(number, blocks, {"m": torch.full((1,), float(number))}, state)
    digest = folder.facts().committed[last]["digest"]
    recorder.record("run_finished", outcome="completed", rounds=last, digest=digest)


@pytest.mark.parametrize(("can_exchange", "last", "kept"), [(True, LAST, [2, 3]), (False, 1, [1])])
def test_dying_between_any_two_operations(tmp_path: Path, can_exchange: bool, last: int, kept: list[int]) -> None:
    length, died = 0, True
    while died:
        path = RunFolder.create(tmp_path / "runs", RECIPE).path
        # Of a round that an earlier process did not end.
        save_checkpoint(path / "checkpoints", 1, {"head.weight": torch.zeros(2, 2)}, {}, {})
        with pytest.MonkeyPatch.context() as patch:
            Life(patch, length, can_exchange)
            try:
                go_on(path, last)
                died = False
            except DeadError:
                pass
        folder = RunFolder(path, RECIPE)
        found = verify_run(folder)
        assert found.problems == [] or "holds no entry" in found.problems[0], length
        rounds = committed_rounds(folder)
        checkpoint = last_checkpoint(folder)
        assert (checkpoint.round if checkpoint else 0) == max(rounds, default=0)
        if died:
            go_on(path, last)
        done = verify_run(RunFolder(path, RECIPE))
        assert (done.problems, done.finished, done.checkpoints) == ([], True, kept), length
        assert {entry.name[0] for entry in (path / "checkpoints").iterdir()} == {"r"}
        length += 1
    assert length > 15 * last


def test_files_that_may_not_grow_end_a_run_clearly_and_it_goes_on_later(tmp_path: Path) -> None:
    """RLIMIT_FSIZE stands for a full disk: real writes fail, in the journal and in every file of a checkpoint."""
    refused = 0
    for limit in range(1, 3000, 59):
        path = RunFolder.create(tmp_path / "runs", RECIPE).path
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            go_on(path)
        except RunFolderError as error:
            assert "free space" in str(error)
            refused += 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        go_on(path)
        found = verify_run(RunFolder(path, RECIPE))
        assert (found.problems, found.finished, found.checkpoints) == ([], True, [2, 3]), limit
    assert refused > 20


def test_a_committed_round_is_never_written_again(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, RECIPE)
    go_on(folder.path)
    blocks = LAYOUT.gather({"head.weight": torch.zeros(2, 2)})
    with pytest.raises(RunFolderError, match="round 3 is committed already"):
        RunRecorder(folder, LAYOUT).commit(3, blocks, {}, {"digest": "", "summary": {}})


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_folder_that_is_replaced_is_there_at_every_instant(tmp_path: Path, can_exchange: bool) -> None:
    length, died = 0, True
    while died:
        path = tmp_path / str(length) / "f"
        path.mkdir(parents=True)
        (path / "v").write_text("old")
        with pytest.MonkeyPatch.context() as patch:
            Life(patch, length, can_exchange)
            try:
                with new_folder(path) as fresh:
                    (fresh / "v").write_text("new")
                died = False
            except DeadError:
                pass
        assert path.exists() or not can_exchange
        sweep(path.parent)
        assert (path / "v").read_text() in ("old", "new")
        assert [entry.name for entry in path.parent.iterdir()] == ["f"]
        length += 1
    assert (path / "v").read_text() == "new"


def test_an_error_between_the_two_renames_puts_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "_exchanged", lambda one, other: False)
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "v").write_text("old")
    real, calls = os.rename, []

    def rename(source: Any, target: Any) -> None:
        calls.append(source)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(OSError, match="Input/output"), new_folder(tmp_path / "f"):
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f" / "v").read_text() == "old"


def test_sweeping_leaves_what_is_not_its_own(tmp_path: Path) -> None:
    names = ["round-000001", ".hidden", ".a.tmp", f".{'0' * 32}.tmp"]
    for name in names:
        (tmp_path / name).mkdir()
    (tmp_path / f".round-000002.{'a' * 32}.del").mkdir()
    (tmp_path / f".file.{'b' * 32}.tmp").write_text("x")
    (tmp_path / f".link.{'c' * 32}.tmp").symlink_to(tmp_path / "round-000001")
    sweep(tmp_path)
    sweep(tmp_path / "missing")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted(names)
    assert checkpoint_rounds(tmp_path) == [1]


def test_dying_while_the_tokenizer_is_copied_leaves_no_half_copy(tmp_path: Path) -> None:
    for length in range(0, 32, 2):
        folder = RunFolder.create(tmp_path, RECIPE)
        with pytest.MonkeyPatch.context() as patch:
            Life(patch, length, can_exchange=True)
            with contextlib.suppress(DeadError):
                provenance(folder, ByteTokenizer())
        assert provenance(folder, ByteTokenizer())["tokenizer_files"], length
        assert not list(folder.path.glob(".tokenizer*")), length
