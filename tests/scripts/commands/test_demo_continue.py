"""`trfmoe demo continue` from end to end, as a process, at a size at which it learns little."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from scripts.commands.demo_continue import PROMPT
from scripts.continuing.judged import CENTRAL_GOAL
from server.run_folder.folder import RunFolder
from server.run_folder.journal import read_events
from tests.federation import of_kind

OWNERS = ["law", "mathematics", "code"]
STAGES = [
    "1. a dense model learns general text",
    "2. three owners go on with it together",
    "3. for comparison: each owner alone, and one machine with all text",
    "4. text that nobody trained on",
]
REDUCED = ["dense.training.steps=4", "rounds.num_rounds=2", "rounds.local_steps=2", "nodes.2.drill.from_round=2"]
KEPT_AT_ANY_SIZE = [
    "the run completed",
    "code, told to lie, was outvoted in every round in which it lied",
    "no honest node was outvoted in those rounds",
    "transformers opens the export and gives the same logits",
]
TOO_LITTLE_TRAINING = [
    "the model has learnt every owner's domain",
    "together is better than every owner alone, over all domains",
    "general text needs at most 1.03 of what it needed before",
    "it writes a text",
]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_step_is_made_and_every_promise_is_judged(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "scripts", "demo", "continue", "--json"]
    command += [part for one in REDUCED for part in ("--set", one)]
    environment = os.environ | {"COLUMNS": "200"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    shown = done.stderr
    assert done.returncode in (0, 1), shown
    found = json.loads(done.stdout)
    places = [shown.index(stage) for stage in STAGES]
    assert places == sorted(places)

    kept = {check["check"]: check["ok"] for check in found["checks"]}
    assert sorted(kept) == sorted(KEPT_AT_ANY_SIZE + TOO_LITTLE_TRAINING)
    assert [name for name in KEPT_AT_ANY_SIZE if not kept[name]] == []
    assert done.returncode == found["exit_code"] == (0 if all(kept.values()) else 1)
    for name, ok in kept.items():
        assert f"{'ok    ' if ok else 'FAILED'} {name}" in shown

    scores, runs = found["scores"], found["runs"]
    assert list(scores) == ["before", "together", *OWNERS, "one machine"] and list(runs) == list(scores)[1:]
    for model, row in scores.items():
        assert list(row) == [*OWNERS, "general"] and all(0 < bits < 9 for bits in row.values())
        mean = sum(row[owner] for owner in OWNERS) / len(OWNERS)
        label = f"{model} alone" if model in OWNERS else model
        line = r"\s+".join([label, *(f"{bits:.4f}" for bits in [*row.values(), mean])])
        assert re.search(rf"(?m)^{line}\s*$", shown), f"no line {line} in\n{shown}"
    ratio = sum(scores["together"][one] for one in OWNERS) / sum(scores["one machine"][one] for one in OWNERS)
    assert found["over_central"] == pytest.approx(ratio)
    assert f"together needs {ratio:.3f} times the bits of one machine" in shown and f"(goal {CENTRAL_GOAL})" in shown
    assert len({json.dumps(row) for row in scores.values()}) == len(scores), "two models are the same"

    exported = tmp_path / found["export"]
    assert AutoModelForCausalLM.from_pretrained(exported, local_files_only=True).config.model_type == "mixtral"
    assert found["text"].startswith(PROMPT) and f"text of {found['export']}, opened with transformers" in shown
    dense = next(tmp_path.glob("runs/dense-local-*/export/config.json"))
    assert json.loads(dense.read_text())["model_type"] == "llama"
    kinds = [of_kind(read_events(RunFolder.open(tmp_path / run).events_path), "run_finished") for run in runs.values()]
    assert all(len(finished) == 1 for finished in kinds)
