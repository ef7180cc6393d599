"""The drill: its cells train for real, its table compares what belongs together, and its command says so."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from clients.attacks.base import all_attacks
from scripts.experiments import runner
from scripts.experiments.cell import Cell, Result, Round
from scripts.experiments.cell_training import cell_recipe, deal_text, last_nodes, read_pieces
from scripts.experiments.faults import FAULTS, find_fault
from scripts.experiments.store import Store
from scripts.experiments.studies.drill import DrillStudy
from scripts.main import main
from tests.conftest import TINY, words
from trfmoe_core.config import Recipe
from trfmoe_core.errors import ConfigError


@pytest.fixture
def study(tmp_path: Path) -> DrillStudy:
    """A drill with texts for three nodes."""
    (tmp_path / "text.txt").write_text(words(0, 8000))
    made = DrillStudy(recipe=small(), folder=tmp_path / "drill", counts=[3])
    deal_text(read_pieces([str(tmp_path / "text.txt")], tmp_path / "cache"), [3], made.texts)
    return made


def small() -> Recipe:
    data = {"piece_bytes": 512, "evaluation_tokens": 512}
    rounds = {"num_rounds": 3, "local_steps": 6}
    return Recipe.model_validate({**TINY, "data": data, "rounds": rounds, "agreement": {"cosine": 0.0}})


def cell(fault: str, rule: str = "majority", nodes: int = 3, seed: int = 0, attackers: int = 1) -> Cell:
    names = () if fault == "none" else last_nodes(nodes, attackers)
    return Cell(nodes=nodes, fault=fault, rule=rule, seed=seed, attackers=names)


def test_a_quick_drill(study: DrillStudy) -> None:
    faults = ["scale_x100", "stall", "slow", "garbage"]
    study = replace(study, faults=faults, seeds=1, rules=("majority", "mean"))
    results = {c: study.train(c) for c in study.cells()}
    assert all(result.ended for result in results.values()), results
    rows = {(row.fault, row.rule): row for row in study.rows(results)}
    assert rows["scale_x100", "majority"].ratio < 1.03 < 1.4 < rows["scale_x100", "mean"].ratio  # type: ignore[operator]
    assert rows["scale_x100", "majority"].most_lost
    assert rows["scale_x100", "majority"].named == 3
    assert rows["stall", "majority"].blocks == rows["garbage", "majority"].blocks == 3 * 9
    assert rows["stall", "majority"].ratios == rows["garbage", "majority"].ratios
    assert rows["slow", "majority"].blocks == 0
    told = study.payload(results)
    assert told["ended"]
    assert told["majority_worst"] < told["mean_worst"]
    assert told["seeds"] == [0] and told["environment"]["torch"]
    assert json.loads(json.dumps(told, allow_nan=False))["cells"]
    assert any("scale_x100" in line for line in study.markdown(results))


def test_a_run_that_cannot_start_is_a_result(study: DrillStudy) -> None:
    found = study.train(cell("none", nodes=7))
    assert not found.ended
    assert "nodes can take part" in found.reason
    assert not found.losses


SLOW_FAULTS = [pytest.param(fault, marks=pytest.mark.slow) for fault in ("label_flip", "inner_product")]


@pytest.mark.parametrize("fault", ["sign_flip", "restart", *SLOW_FAULTS])
def test_kept_answers_give_the_same_cell(study: DrillStudy, fault: str) -> None:
    first, again = (study.train(cell(fault)) for _ in range(2))
    study.answers.rename(study.folder / "other answers")
    afresh = study.train(cell(fault))
    assert first.ended
    assert first.losses == again.losses == afresh.losses
    assert first.rounds == again.rounds
    assert first.losses != study.train(cell(fault, seed=1)).losses


def test_every_node_has_its_part_of_the_text(study: DrillStudy) -> None:
    parts = [path.read_text() for path in sorted((study.texts / "3").iterdir())]
    assert len(parts) == len(set(parts)) == 3
    assert max(map(len, parts)) < 1.7 * min(map(len, parts)), "ten pieces, one of them short, for three nodes"


def test_the_cell_decides_what_it_varies() -> None:
    recipe = cell_recipe(small(), cell("none", "median", 5, 4), Path("/x"))
    assert (recipe.vote, recipe.seed, recipe.federation_size, recipe.run_root) == ("median", 4, 5, "/x")
    assert recipe.model == small().model


def test_two_attackers_only_where_the_placement_has_room(study: DrillStudy) -> None:
    assert not [c for c in study.cells() if len(c.attackers) == 2]
    pairs = {c.fault: c.attackers for c in replace(study, counts=[9]).cells() if len(c.attackers) == 2}
    assert len(pairs) == 5
    assert pairs["stays_close"] == ("node-08", "node-09")


def test_the_cells_hold_what_they_are_compared_with_and_each_once(study: DrillStudy) -> None:
    cells = replace(study, counts=[3, 9]).cells()
    assert len(set(cells)) == len(cells)
    assert {study.reference(c) for c in cells} <= set(cells)
    assert study.reference(cell("nan")) == cell("crash", "mean")
    assert study.reference(cell("zero", seed=2)) == cell("none", "mean", seed=2)
    assert {c.seed for c in cells if c.rule == "majority"} == {0, 1, 2}
    short = replace(study, faults=["zero"], seeds=1, rules=("majority", "mean"))
    assert short.cells() == [cell("none", "mean"), cell("zero"), cell("zero", "mean")]


def test_a_fault_is_any_registered_attack_with_its_factor() -> None:
    assert all(find_fault(name) == fault for name, fault in FAULTS.items())
    assert find_fault("scale_x-0.4").drill.factor == -0.4  # type: ignore[union-attr]
    assert find_fault("ascent").kind == "plain" and find_fault("stays_close").kind == "adaptive"
    assert find_fault("late_sign_flip").drill_in(5).from_round == 3  # type: ignore[union-attr]
    wrong = {
        "sing": "'sing' is unknown",
        "scale": "scale_x-3",
        "scale_xnan": "scale_x-3",
        "zero_x3": "leave its factor out",
    }
    for name, message in wrong.items():
        with pytest.raises(ConfigError, match=message):
            find_fault(name)


def result(c: Cell, losses: Sequence[float], lost: dict[str, int] | None = None, ended: bool = True) -> Result:
    honest = [name for name in last_nodes(c.nodes, c.nodes) if name not in c.attackers]
    measured = dict(zip(honest, losses, strict=False))
    rounds = [Round(lost_blocks=lost or {}, blamed=sorted(lost or {}))]
    return Result(cell=c, losses=measured, rounds=rounds, ended=ended, seconds=1.0)


def test_the_table_compares_the_same_nodes_and_the_same_seed(study: DrillStudy) -> None:
    found = [
        result(cell("none", "mean"), [2.0, 4.0, 90.0]),
        result(cell("none", "mean", seed=1), [1.0, 1.0, 90.0]),
        result(cell("zero"), [3.0, 6.0], {"node-03": 5, "node-01": 4}),
        result(cell("zero", seed=1), [1.0, 1.2], {"node-03": 5, "node-01": 5}),
        result(cell("zero", "mean"), []),
    ]
    rows = {(row.fault, row.rule): row for row in study.rows({r.cell: r for r in found})}
    voted = rows["zero", "majority"]
    assert voted.ratios == [1.5, pytest.approx(1.1)]
    assert voted.text == "1.300 (1.100-1.500)"
    assert (voted.blocks, voted.honest_blocks, voted.named) == (5, 5, 1.0)
    assert not voted.most_lost
    assert rows["zero", "mean"].text == "lost"
    kept = {promise.text: promise for promise in study.promises(list(rows.values()))}
    assert not kept["plain and silent faults"].kept
    assert kept["plain and silent faults"].worst == pytest.approx(1.3)
    assert kept["every run ends"].kept
    assert not kept["faults that harm the mean where the faulty node is not the one that lost most"].kept


def test_a_drill_that_was_stopped_goes_on(tmp_path: Path) -> None:
    ended, broken = result(cell("zero"), [1.5, 2.5], {"node-03": 4}), result(cell("nan"), [], ended=False)
    store = Store(tmp_path, ["recipe", "text"])
    store.save(ended)
    store.save(broken)
    cells = [cell("zero"), cell("nan"), cell("zero", seed=1), cell("zero", "mean"), cell("zero", nodes=4)]
    assert Store(tmp_path, ["recipe", "text"]).load(cells) == {cell("zero"): ended}
    assert Store(tmp_path, ["recipe", "other text"]).load(cells) == {}


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def pretend(study: DrillStudy, cells: Sequence[Cell], jobs: int) -> Iterator[Result]:
        assert (study.texts / "3" / "node-01.txt").read_text()
        asked.append(len(cells))
        for number, c in enumerate(cells):
            yield result(c, [2.0] * 3, ended=number > 0)

    asked: list[int] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "train_cells", pretend)
    (tmp_path / "text.txt").write_text(words(0, 2000))
    nodes = [{"name": name, "data": ["text.txt"]} for name in "abc"]
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({**TINY, "nodes": nodes}))

    def call(*arguments: str) -> tuple[int, dict[str, Any]]:
        with pytest.raises(SystemExit) as exit_info:
            main(["drill", "r.yaml", *arguments, "--json"])
        return int(exit_info.value.code or 0), json.loads(capfd.readouterr().out.splitlines()[-1])

    code, told = call("--quick")
    assert code == 1
    assert not told["ended"]
    assert {"majority_worst", "mean_worst", "cells"} <= set(told)
    assert not (tmp_path / "docs").exists()
    call("--nodes", "3", "--seeds", "2")
    page = (tmp_path / "docs" / "results" / "drill.md").read_text()
    assert all(f"| {name} |" in page for name in FAULTS)
    call("--nodes", "3", "--seeds", "2")
    assert asked[2] == 1, "only the cell that did not end is run again"
    assert call("--attacks", "sign_flip,nonsense")[0] == 2
    assert call("--nodes", "2")[0] == 2


def test_the_list_of_attacks(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["drill", "--list"])
    assert not exit_info.value.code
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == len(all_attacks())
    assert any(line.split()[:2] == ["scale", "update"] and "FACTOR" in line for line in lines)
