"""The losses of whole runs by every way to travel, compared seed by seed."""

import json
from pathlib import Path

import pytest

from scripts.commands.bench import compare_transports
from scripts.experiments.cell import Cell, Result
from scripts.experiments.studies import wire_loss
from scripts.experiments.studies.wire_loss import BASELINE, COMPARED, WireLossStudy
from tests.conftest import words
from trfmoe_core.config import Recipe

SMALL = {"layers": 2, "width": 32, "heads": 2, "experts": 4, "top_k": 2, "expert_width": 32, "context": 32}


def test_losses_are_compared_seed_by_seed(tmp_path: Path) -> None:
    study = WireLossStudy(recipe=Recipe(), folder=tmp_path, seeds=2)
    cells = study.cells()
    losses = {
        (way, seed): [2.0 + seed, 3.0 + seed + 0.01 * number, 9.0]
        for number, way in enumerate((BASELINE, *COMPARED))
        for seed in (0, 1)
    }
    results = {}
    for cell in reversed(cells):
        found = dict(zip("abc", losses[cell.setting, cell.seed], strict=True))
        results[cell] = Result(cell=cell, losses=found, rounds=[])
    told = study.payload(results)
    assert told["losses"][COMPARED[1]] == [3.02, 4.02], "the median over the nodes, a seed each"
    assert told["loss_ratios"][COMPARED[1]] == [pytest.approx(3.02 / 3.0), pytest.approx(4.02 / 4.0)]
    assert told["loss_ratio_worst"] == pytest.approx(3.03 / 3.0)
    assert told["reached"]
    worst = Cell(nodes=3, rule="majority", seed=1, setting=COMPARED[0])
    results[worst] = Result(cell=worst, losses={"a": 4.05}, rounds=[])
    assert not study.payload({**results, cells[4]: Result(cell=cells[4], losses={"a": 4.0}, rounds=[])})["reached"]


def test_the_command_trains_every_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.txt").write_text(words(1, 30_000))
    recipe = {**wire_loss.RECIPE, "model": SMALL, "data": {"piece_bytes": 512, "evaluation_tokens": 1024}}
    monkeypatch.setattr(wire_loss, "RECIPE", recipe)
    compare_transports([str(tmp_path / "text.txt")], seeds=1, rounds=2, steps=2, as_json=True)
    result = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert len({losses[0] for losses in result["losses"].values()}) == 4, "each way leaves a model of its own"
    for way, [ratio] in result["loss_ratios"].items():
        assert ratio == result["losses"][way][0] / result["losses"][BASELINE][0]
        assert ratio == pytest.approx(1, abs=0.01)
