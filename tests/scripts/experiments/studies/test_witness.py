"""The measurement of votes among nodes with different texts, at a size that says nothing but that it works."""

import json
from pathlib import Path

import pytest

from scripts.experiments.cell import Cell, Result, Round
from scripts.experiments.studies.witness import WitnessStudy, make_recipe
from scripts.main import app
from tests.conftest import words
from trfmoe_core.errors import ConfigError

SMALL = [
    "model={layers: 1, width: 32, heads: 2, experts: 3, top_k: 1, expert_width: 16, context: 16}",
    "data.evaluation_tokens=512",
    "data.piece_bytes=128",
    "rounds={num_rounds: 2, local_steps: 2}",
]


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    found = [part for setting in SMALL for part in ("--set", setting)]
    for seed, name in enumerate(("one", "two", "three")):
        (tmp_path / f"{name}.txt").write_text(words(seed, 1500))
        found += ["--data", str(tmp_path / f"{name}.txt")]
    return [*found, "--cells", str(tmp_path / "cells"), "--json"]


def test_cells_are_measured_once_and_kept(
    arguments: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results" / "witness.md"
    options = ["bench", "witness", *arguments, "--nodes", "3,4", "--attacks", "none,ascent,nan", "--out", str(out)]
    options += ["--rules", "witness,graph", "--seeds", "1", "--liars", "n0,n0+n1"]
    app(options, standalone_mode=False)
    told, shown = capfd.readouterr()
    result = json.loads(told.splitlines()[-1])
    found = {(row["nodes"], row["rule"], row["fault"], row["attackers"]): row for row in result["rows"]}
    assert len(found) == 14
    assert found[3, "witness", "none", 0]["ratios"] == [1.0]
    assert found[3, "witness", "nan", 1]["ratios"] == [1.0], "a node that is dropped is absent"
    assert (4, "graph", "ascent", 2) in found and (3, "graph", "ascent", 2) not in found
    table = out.read_text()
    assert "--data one.txt" in table and str(tmp_path) not in table
    assert "## 4 nodes, 2 attackers at once" in table and "| ascent |" in table and "## Promises" in table
    assert shown.count("seed 0") == 19
    written = [path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()]
    app(options, standalone_mode=False)
    assert json.loads(capfd.readouterr().out.splitlines()[-1])["rows"] == result["rows"]
    assert [path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()] == written, "nothing is run again"


@pytest.mark.slow
def test_two_processes_find_what_one_finds(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    options = ["--nodes", "3", "--attacks", "none,sign_flip", "--rules", "graph", "--seeds", "2", "--liars", "n2"]
    found = []
    for jobs in ("1", "2"):
        alone = [part for part in arguments if part != "--cells" and "cells" not in part]
        app(["bench", "witness", *alone, *options, "--jobs", jobs], standalone_mode=False)
        found.append(json.loads(capfd.readouterr().out.splitlines()[-1])["rows"])
    assert found[0] == found[1]


def test_a_promise_is_kept_or_not() -> None:
    def result(rule: str, fault: str, loss: float, blamed: list[list[str]]) -> Result:
        cell = Cell(nodes=3, seed=0, rule=rule, fault=fault, attackers=() if fault == "none" else ("n0",))
        return Result(cell=cell, losses={"a": loss, "b": 2.0}, rounds=[Round(blamed=names) for names in blamed])

    results = [
        result("mean", "none", 2.0, [[]] * 4),
        result("mean", "crash", 2.2, [[]] * 4),
        result("witness", "none", 2.03, [["n1"], ["n1", "n2"], ["n2"], ["n2"]]),
        result("witness", "sign_flip", 2.2, [["n0"], ["n0"], [], ["n0", "n1"]]),
    ]
    study = WitnessStudy(recipe=make_recipe([]), files=["a", "b"], counts=[3])
    none, sign_flip = study.rows({found.cell: found for found in results})
    assert (none.ratios, none.worst_ratios) == ([pytest.approx(1.0075)], [1.015])
    assert (none.honest_named, none.quarantined) == (4, 1)
    assert (sign_flip.ratios, sign_flip.any_named) == ([1.0], 3.0)
    assert (sign_flip.honest_named, sign_flip.quarantined) == (1, 0)
    assert [promise.kept for promise in study.promises([none, sign_flip])] == [False, False, True, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--attacks", "sing"], "--attacks: 'sing' is unknown; choose one of alternate, ascent,"),
        (["--rules", "most"], "--rules: 'most' is none of witness, graph, mean"),
        (["--nodes", "2"], "--nodes 2: give numbers from 3"),
        (["--nodes", "3,x"], "--nodes 3,x: give numbers from 3"),
        (["--attacks", "none,garbage"], "--attacks: garbage needs a node's client"),
        (["--attacks", "stall"], "--attacks: stall needs a node's client"),
    ],
)
def test_wrong_options_are_refused(options: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        app(["bench", "witness", "--data", "x", *options], standalone_mode=False)
