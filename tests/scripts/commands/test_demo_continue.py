"""`trfmoe demo continue` from end to end, at a size at which it learns nothing."""

import json
from pathlib import Path

import pytest

from tests.scripts.commands.test_export import call, result


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_step_is_made_and_every_promise_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    short = ["dense.training.steps=4", "rounds.num_rounds=2", "rounds.local_steps=2", "nodes.2.drill.from_round=2"]
    code = call("demo", "continue", "--json", *[part for one in short for part in ("--set", one)])
    found = result(capfd)
    assert code == found["exit_code"] and code in (0, 1)
    kept = {check["check"]: check["ok"] for check in found["checks"]}
    assert len(kept) == 8
    assert kept["the run completed"] and kept["transformers opens the export and gives the same logits"]
    models = ["before", "together", "law", "mathematics", "code", "one machine"]
    assert list(found["scores"]) == models and list(found["runs"]) == models[1:]
    assert all(0 < bits < 9 for row in found["scores"].values() for bits in row.values())
    exported = Path(found["export"])
    assert json.loads((exported / "config.json").read_text())["model_type"] == "mixtral"
    dense = next(tmp_path.glob("runs/dense-local-*/export/config.json"))
    assert json.loads(dense.read_text())["model_type"] == "llama"
