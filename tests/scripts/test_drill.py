"""The drill: its cells run for real, its table compares what belongs together, and its command says so."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.drill import commands as drill_module
from scripts.drill.cell import Cell, CellResult, cell_recipe, deal_text, liars_of, read_pieces, run_cell
from scripts.drill.commands import plan
from scripts.drill.faults import FAULTS, faults_for
from scripts.drill.store import Store
from scripts.drill.table import markdown, payload, promises, reference, table
from scripts.main import main
from strategies.voting import Rule
from tests.conftest import TINY, words
from trfmoe_core.config import AgreementConfig, Recipe


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Texts dealt out among three nodes."""
    (tmp_path / "text.txt").write_text(words(0, 8000))
    deal_text(read_pieces([str(tmp_path / "text.txt")], tmp_path / "cache"), [3], tmp_path / "texts")
    return tmp_path / "texts"


def small() -> Recipe:
    data = {"piece_bytes": 512, "evaluation_tokens": 512}
    rounds = {"num_rounds": 3, "local_steps": 6}
    return Recipe.model_validate({**TINY, "data": data, "rounds": rounds, "agreement": {"cosine": 0.0}})


def cell(fault: str, rule: Rule = "majority", nodes: int = 3, seed: int = 0) -> Cell:
    return Cell(nodes=nodes, fault=fault, rule=rule, seed=seed)


def test_a_quick_drill(texts: Path) -> None:
    cells = plan([3], ["x100", "stall", "slow", "garbage"], 1, 2)
    results = {c: run_cell(small(), c, texts, texts / "memory") for c in cells}
    assert all(result.ended for result in results.values()), results
    rows = {(row.fault, row.rule): row for row in table(results)}
    assert rows["x100", "majority"].ratio < 1.03 < 1.5 < rows["x100", "mean"].ratio  # type: ignore[operator]
    assert rows["x100", "majority"].most_named
    assert rows["x100", "majority"].named == 3
    assert rows["stall", "majority"].blocks == rows["garbage", "majority"].blocks == 3 * 9
    assert rows["stall", "majority"].ratios == rows["garbage", "majority"].ratios
    assert rows["slow", "majority"].blocks == 0
    told = payload(results)
    assert told["ended"]
    assert told["majority_worst"] < told["mean_worst"]
    assert json.loads(json.dumps(told, allow_nan=False))["cells"]
    assert any("x100" in line for line in markdown(list(rows.values())))


def test_a_run_that_cannot_start_is_a_result(texts: Path) -> None:
    result = run_cell(small(), cell("none", nodes=7), texts, texts / "memory")
    assert not result.ended
    assert "nodes can take part" in result.reason
    assert not result.losses


@pytest.mark.parametrize("fault", ["sign flip", "label flip", "restart", "inner product"])
def test_remembered_answers_give_the_same_cell(texts: Path, fault: str) -> None:
    first, again = (run_cell(small(), cell(fault), texts, texts / "memory") for _ in range(2))
    afresh = run_cell(small(), cell(fault), texts, texts / "other memory")
    assert first.ended
    assert first.losses == again.losses == afresh.losses
    assert (first.named, first.lost_blocks) == (again.named, again.lost_blocks)
    assert first.losses != run_cell(small(), cell(fault, seed=1), texts, texts / "memory").losses


def test_a_drill_that_was_stopped_goes_on(tmp_path: Path) -> None:
    store = Store(tmp_path, small(), ["one", "two", "three"], [3])
    ended, broken = result(cell("zero"), [1.5, 2.5], {"node-03": 4}), result(cell("nan"), [], ended=False)
    store.save(ended)
    store.save(broken)
    cells = [cell("zero"), cell("nan"), cell("zero", seed=1)]
    assert Store(tmp_path, small(), ["one", "two", "three"], [3]).load(cells) == {cell("zero"): ended}
    assert Store(tmp_path, small(), ["one", "two", "four"], [3]).load(cells) == {}
    other = small().model_copy(update={"agreement": AgreementConfig(cosine=0.5)})
    assert Store(tmp_path, other, ["one", "two", "three"], [3]).load(cells) == {}
    store.forget_answers()
    assert (store.texts / "3" / "node-02.txt").read_text() == "two"


def test_every_node_has_its_part_of_the_text(texts: Path) -> None:
    parts = [path.read_text() for path in sorted((texts / "3").iterdir())]
    assert len(parts) == len(set(parts)) == 3
    assert max(map(len, parts)) < 1.2 * min(map(len, parts))


def test_the_cell_decides_what_it_varies() -> None:
    recipe = cell_recipe(small(), cell("none", "median", 5, 4), Path("/x"))
    assert (recipe.vote, recipe.seed, recipe.federation_size, recipe.run_root) == ("median", 4, 5, "/x")
    assert recipe.model == small().model


def test_two_liars_only_where_the_placement_has_room() -> None:
    assert not [fault for fault in faults_for(3) if fault.liars == 2]
    assert len([fault for fault in faults_for(7) if fault.liars == 2]) == 5
    assert liars_of(cell("stays close by two", nodes=9)) == ["node-08", "node-09"]


def test_the_plan_holds_what_it_compares_with_and_each_cell_once() -> None:
    cells = plan([3, 9], [], 3)
    assert len(set(cells)) == len(cells)
    assert {reference(c) for c in cells} <= set(cells)
    assert reference(cell("nan")) == cell("crash before", "mean")
    assert reference(cell("zero", seed=2)) == cell("none", "mean", seed=2)
    assert {c.seed for c in cells if c.rule == "majority"} == {0, 1, 2}
    assert plan([3], ["zero"], 1, 2) == [cell("none", "mean"), cell("zero"), cell("zero", "mean")]


def result(c: Cell, losses: Sequence[float], lost: dict[str, int] | None = None, ended: bool = True) -> CellResult:
    names = [f"node-{number:02d}" for number in range(1, c.nodes + 1)]
    honest = [name for name in names if name not in liars_of(c)]
    measured = dict(zip(honest, losses, strict=False))
    return CellResult(
        cell=c, ended=ended, reason="", losses=measured, named=lost or {}, lost_blocks=lost or {}, seconds=1.0
    )


def test_the_table_compares_the_same_nodes_and_the_same_seed() -> None:
    found = [
        result(cell("none", "mean"), [2.0, 4.0, 90.0]),
        result(cell("none", "mean", seed=1), [1.0, 1.0, 90.0]),
        result(cell("zero"), [3.0, 6.0], {"node-03": 5, "node-01": 4}),
        result(cell("zero", seed=1), [1.0, 1.2], {"node-03": 5, "node-01": 5}),
        result(cell("zero", "mean"), []),
    ]
    rows = {(row.fault, row.rule): row for row in table({r.cell: r for r in found})}
    voted = rows["zero", "majority"]
    assert voted.ratios == [1.5, pytest.approx(1.1)]
    assert voted.text == "1.300 (1.100-1.500)"
    assert not voted.most_named
    assert rows["zero", "mean"].text == "lost"
    kept = {promise.text: promise for promise in promises(list(rows.values()))}
    assert not kept["plain and silent faults"].kept
    assert kept["plain and silent faults"].worst == pytest.approx(1.3)
    assert kept["every run ends"].kept
    assert not kept["faults that harm the mean where the faulty node is not the one that lost most"].kept


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def pretend(recipe: Recipe, cells: Sequence[Cell], store: Store, jobs: int) -> Any:
        assert (store.texts / "3" / "node-01.txt").read_text()
        asked.append(len(cells))
        for number, c in enumerate(cells):
            yield result(c, [2.0] * 3, ended=number > 0)

    asked: list[int] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(drill_module, "run_cells", pretend)
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
    assert all(f"| {fault.name} |" in page for fault in faults_for(3))
    call("--nodes", "3", "--seeds", "2")
    assert asked[2] == 1, "only the cell that did not end is run again"
    assert call("--attacks", "sign_flip,nonsense")[0] == 2
    assert call("--nodes", "2")[0] == 2
    assert set(FAULTS) >= {"none", "a little is enough"}
