"""The studies at a size that says nothing but that they work."""

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.experiments.studies import low_rank
from scripts.main import app
from tests.conftest import words
from trfmoe_core.errors import ConfigError

SMALL = [
    "model={layers: 1, width: 32, heads: 2, experts: 4, top_k: 2, expert_width: 16, context: 16}",
    "data.piece_bytes=256",
    "training.batch_size=4",
]


def study(capfd: pytest.CaptureFixture[str], name: str, *options: str) -> dict[str, Any]:
    sets = [part for setting in SMALL for part in ("--set", setting)]
    arguments = ["study", name, *sets, "--steps", "50", "--jobs", "1", "--json", *options]
    assert app(arguments, standalone_mode=False) == 0
    return json.loads(capfd.readouterr().out.splitlines()[-1])


@pytest.fixture
def text(tmp_path: Path) -> str:
    (tmp_path / "text.txt").write_text(words(1, 6000))
    return str(tmp_path / "text.txt")


def test_as_one_compares_and_keeps_its_cells(text: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "as-one.md"
    found = study(capfd, "as-one", "--text", text, "--out", str(out))
    assert {"fed_over_central_h25", "fed_over_central_h10", "fed_over_adamw_central", "liar_over_absent"} <= set(found)
    assert len(found["cells"]) == 7 and found["texts"] == ["text"] and found["environment"]["threads"] == 1
    assert 0.5 < found["fed_over_central_h25"] < 2
    assert found["liar_over_absent"] == pytest.approx(1, abs=0.05), "a sign flip is outvoted"
    table = out.read_text()
    assert "| liar_over_absent | 1.02 |" in table and str(tmp_path) not in table
    again = study(capfd, "as-one", "--text", text)
    assert again["cells"] == found["cells"], "nothing is trained again, to the millisecond"


def test_domains_are_compared_one_by_one(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for number, name in enumerate(("a", "b", "c")):
        (tmp_path / "texts" / name).mkdir(parents=True)
        (tmp_path / "texts" / name / "text.txt").write_text(words(number, 3000))
    found = study(capfd, "domains", "--text", str(tmp_path / "texts"))
    assert sorted(found["domain_ratios"]) == ["a", "b", "c"] and len(found["cells"]) == 3
    assert found["worst_domain"] >= found["fed_over_central"] > 0.5


def test_shakespeare_has_both_splits(text: str, capfd: pytest.CaptureFixture[str]) -> None:
    found = study(capfd, "shakespeare", "--text", text)
    assert len(found["cells"]) == 3
    (own,) = [cell for cell in found["cells"] if "last tenth" in cell["losses"]]
    assert own["nodes"] == 1 and 0 < own["losses"]["last tenth"] < 5.5
    assert 0 < found["alone"] < 5.5 and 0 < found["three_nodes_with_liar"] < 5.5


@pytest.mark.slow
def test_low_rank_experts_are_compared_with_full_ones(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(low_rank, "DENSE_STEPS", 50)
    monkeypatch.setattr(low_rank, "RANK", 2)
    monkeypatch.setattr(low_rank, "RATES", {"full": (8e-3,), "low-rank": (8e-3,)})
    texts = []
    for number, name in enumerate(("general", "a", "b", "c")):
        (tmp_path / f"{name}.txt").write_text(words(number, 3000))
        texts += ["--text", str(tmp_path / f"{name}.txt")]
    found = study(capfd, "low-rank", *texts)
    assert len(found["cells"]) == 4 and found["ended"]
    assert found["texts"] == ["general", "a", "b", "c"]
    assert set(found["cells"][0]["losses"]) == {"a", "b", "c"}
    assert 0.5 < found["low_rank_over_full"] < 2
    assert found["shares"]["bytes_up"] < 0.5 and found["shares"]["memory"] < 0.6
    with pytest.raises(ConfigError, match="study low-rank: 2 texts; give --text 4 times"):
        app(["study", "low-rank", *texts[:4]], standalone_mode=False)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "cells"), [("liar", 10), ("holders", 4)])
def test_the_other_studies_run(name: str, cells: int, text: str, capfd: pytest.CaptureFixture[str]) -> None:
    found = study(capfd, name, "--text", text)
    assert len(found["cells"]) == cells and found["ended"]


def test_wrong_input_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="study as_one: unknown; choose one of as-one"):
        app(["study", "as_one"], standalone_mode=False)
    with pytest.raises(ConfigError, match="--steps 120"):
        app(["study", "as-one", "--text", text, "--steps", "120"], standalone_mode=False)
