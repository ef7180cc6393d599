"""Several ranks: the numbers of one with the whole batch, clear errors, no orphans."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from tests.places import ROOT
from tests.trfmoe_core.training.rank_work import SPARSE, both_models, with_muon
from tests.trfmoe_core.training.test_trainer import VOCAB
from trfmoe_core.errors import RunError
from trfmoe_core.model.transformer import build_model
from trfmoe_core.training.launch import launch
from trfmoe_core.training.ranks import ALONE

CPU = torch.device("cpu")
WORK = "tests.trfmoe_core.training.rank_work"


def run(kind: str, folder: Path, size: int = 2) -> None:
    launch(WORK, [kind, str(folder)], CPU, size, folder / "scratch")
    assert not (folder / "scratch").exists()


def gone(folder: Path, patience_s: float = 10.0) -> bool:
    """Whether all ranks that wrote down their number have ended."""
    end = time.monotonic() + patience_s
    while any(psutil.pid_exists(int(path.read_text())) for path in folder.glob("pid-*")):
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def test_two_ranks_train_like_one_with_the_doubled_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with idle experts, whose place in the balance loss is that of the whole batch: the order of sums is left."""
    together, alone, temporary = tmp_path / "two", tmp_path / "one", tmp_path / "temporary"
    for folder in (together, alone, temporary):
        folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    run("train", together)
    assert not list(temporary.iterdir()), "torch's launcher leaves a folder of its own"
    both_models(ALONE, CPU, alone, batch_size=4)
    for name in ("busy", "sparse", "padded"):
        ours, shares = json.loads((together / f"{name}.json").read_text())
        theirs, expected = json.loads((alone / f"{name}.json").read_text())
        torch.testing.assert_close(torch.tensor(ours), torch.tensor(theirs), rtol=2e-5, atol=2e-6)
        torch.testing.assert_close(torch.tensor(shares), torch.tensor(expected), rtol=0, atol=0)
        assert any(0.0 in row for row in shares) == (name == "sparse")
        first, second, single = (load_file(folder / name) for folder, name in (
            (together, f"{name}-0"), (together, f"{name}-1"), (alone, f"{name}-0")
        ))  # fmt: skip
        assert first.keys() == single.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
        for key, value in single.items():
            torch.testing.assert_close(first[key], value, rtol=1e-3, atol=2e-5, msg=key)
    assert gone(together)


def test_muon_makes_the_same_update_on_both_ranks_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    together, alone = tmp_path / "two", tmp_path / "one"
    together.mkdir()
    alone.mkdir()
    run("muon", together)
    with_muon(ALONE, CPU, alone, batch_size=4)
    whole = load_file(together / "whole-0")
    assert any(key.startswith("momentum.") for key in whole)
    for name in ("whole-1", "cut-0", "cut-1"):
        other = load_file(together / name)
        assert whole.keys() == other.keys()
        assert all(torch.equal(whole[key], other[key]) for key in whole), name
    single = load_file(alone / "whole-0")
    for key, value in whole.items():
        if key.startswith("updates."):
            assert torch.equal(value, single[key]), key
    # The order of sums differs, and products in bfloat16 round: what a weight has moved agrees, not its last digits.
    start = build_model(SPARSE, VOCAB, 0).state_dict()
    for key in ("embedding.weight", "layers.1.experts.w_down_EDF", "layers.0.attention.qkv.weight"):
        ours, theirs = whole[key] - start[key], single[key] - start[key]
        assert (ours - theirs).norm() < 0.1 * theirs.norm(), key


def test_a_rank_that_dies_ends_all_with_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"rank 1 of the 2 .* was ended by SIGKILL; .*memory.*the others were stopped"):
        run("killed", tmp_path)
    assert gone(tmp_path)


@pytest.mark.slow
def test_a_rank_that_raises_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"rank 1 of the 2 .* failed: ValueError: the disk of rank 1 is on fire"):
        run("raises", tmp_path)
    assert gone(tmp_path)


@pytest.mark.slow
def test_no_rank_outlives_a_parent_that_is_killed(tmp_path: Path) -> None:
    code = f"import torch; from pathlib import Path; from trfmoe_core.training.launch import launch; launch({WORK!r}, ['sleeps', {str(tmp_path)!r}], torch.device('cpu'), 2, Path({str(tmp_path)!r}, 'x'))"  # noqa: E501
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=tmp_path)
    end = time.monotonic() + 100
    while len(list(tmp_path.glob("pid-*"))) < 2:
        assert time.monotonic() < end and parent.poll() is None
        time.sleep(0.1)
    time.sleep(0.5)
    parent.kill()
    parent.wait()
    assert gone(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3, 4])
def test_ranks_resume_bit_for_bit(tmp_path: Path, size: int) -> None:
    run("resume", tmp_path, size)
    for rank in range(size):
        whole, cut = load_file(tmp_path / f"whole-{rank}"), load_file(tmp_path / f"cut-{rank}")
        assert whole.keys() == cut.keys()
        assert all(torch.equal(whole[key], cut[key]) for key in whole)
