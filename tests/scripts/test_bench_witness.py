"""The measurement of votes among nodes with different texts, at a size that says nothing but that it works."""

import json
from pathlib import Path

import pytest

from scripts.bench.witness import main
from scripts.bench.witness_table import Cell, promises, rows
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
    found = {(row["nodes"], row["rule"], row["attack"], row["liars"]): row for row in result["rows"]}
    assert len(found) == 14
    assert found[3, "witness", "none", 0]["ratios"] == [1.0]
    assert found[3, "witness", "nan", 1]["ratios"] == [1.0], "a node that is dropped is absent"
    assert (4, "graph", "ascent", 2) in found and (3, "graph", "ascent", 2) not in found
    table = out.read_text()
    assert "--data one.txt" in table and str(tmp_path) not in table
    assert "## 4 nodes, 2 liars at once" in table and "| ascent |" in table and "## Promises" in table
    assert shown.count("seed 0") == 19
    written = [path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()]
    app(options, standalone_mode=False)
    assert json.loads(capfd.readouterr().out.splitlines()[-1])["rows"] == result["rows"]
    assert [path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()] == written, "nothing is run again"


@pytest.mark.slow
def test_two_processes_find_what_one_finds(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--nodes", "3", "--attacks", "none,sign", "--rules", "graph", "--seeds", "2", "--liars", "n2"]
    alone = [part for part in arguments if part != "--cells" and "cells" not in part]
    main([*alone, *options])
    first = json.loads(capsys.readouterr().out.splitlines()[-1])
    main([*alone, *options, "--jobs", "2"])
    second = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert first["rows"] == second["rows"]


def test_a_promise_is_kept_or_not() -> None:
    def cell(rule: str, attack: str, loss: float, bad: list[list[str]], absent: bool = False) -> Cell:
        liars = ["n0"] if attack != "none" or absent else []
        rounds = [{"bad": names} for names in bad]
        return Cell(
            nodes=3,
            seed=0,
            rule=rule,
            attack=attack,
            liars=liars,
            absent=absent,
            losses={"a": loss, "b": 2.0},
            rounds=rounds,
            seconds=0.0,
        )

    cells = [
        cell("mean", "none", 2.0, [[]] * 4),
        cell("mean", "none", 2.2, [[]] * 4, absent=True),
        cell("witness", "none", 2.03, [["n1"], ["n1", "n2"], ["n2"], ["n2"]]),
        cell("witness", "sign", 2.2, [["n0"], ["n0"], [], ["n0", "n1"]]),
    ]
    none, sign = rows(cells)
    assert (none.ratios, none.domains) == ([pytest.approx(1.0075)], [1.015])
    assert (none.honest, none.quarantined) == (4, 1)
    assert (sign.ratios, sign.named, sign.honest, sign.quarantined) == ([1.0], 3.0, 1, 0)
    assert [promise.kept for promise in promises(rows(cells))] == [False, False, True, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--attacks", "sing"], "--attacks: 'sing' is none of a_little,"),
        (["--rules", "most"], "--rules: 'most' is none of graph, mean, witness"),
        (["--nodes", "2"], "--nodes 2: give numbers from 3"),
        (["--nodes", "3,x"], "--nodes 3,x: give numbers from 3"),
    ],
)
def test_wrong_options_are_refused(options: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        main(["--data", "x", *options])
