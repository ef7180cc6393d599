"""The measurement of votes among nodes with different texts, at a size that says nothing but that it works."""

import json
from pathlib import Path

import pytest

from scripts.bench_witness import main
from tests.conftest import words

SMALL = "model={layers: 1, width: 32, heads: 2, experts: 3, top_k: 1, expert_width: 16, context: 16}"


def test_cells_are_measured_once_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / f"{name}.txt" for name in ("one", "two", "three")]
    for seed, file in enumerate(files):
        file.write_text(words(seed, 1500))
    arguments = ["--texts", *map(str, files), "--nodes", "3", "--attacks", "none,ascent,nan", "--json"]
    arguments += ["--out", str(tmp_path / "out.json"), "--cache", str(tmp_path / "cache"), "--rules", "witness,graph"]
    for setting in (
        SMALL,
        "data.evaluation_tokens=512",
        "data.piece_bytes=128",
        "rounds={num_rounds: 2, local_steps: 2}",
    ):
        arguments += ["--set", setting]
    main(arguments)
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(result) == 8
    assert result["N=3 seed=0 witness none"]["ratio"] == 1.0
    assert result["N=3 seed=0 witness nan n0"]["loss"] == result["N=3 seed=0 mean absent n0"]["loss"]
    main(arguments)
    assert len(capsys.readouterr().out.splitlines()) == 1, "nothing is run again"


def test_unknown_names_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--texts", "x", "--attacks", "sing"])
    assert "sing" in capsys.readouterr().err
