"""docs/journal.md names every event and every field that the code writes, and none that it does not."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.commands.demo import _keep_sample
from scripts.main import main
from server.run_folder.journal import read_events
from server.run_folder.provenance import JOURNAL_SCHEMA
from strategies.exchange.messages import Description, Training, TrainReply
from strategies.round.summary import reply_fields, round_summary
from tests.conftest import TINY, words
from tests.federation import run_recipe
from tests.places import ROOT
from trfmoe_core.config import Recipe
from trfmoe_core.config.yaml_text import dump_yaml

PAGE = (ROOT / "docs" / "journal.md").read_text()
WRITERS = {"record", "_record", "append"}
LIAR = TrainReply(run_id="r", round=1, epoch=1, base_digest="0" * 64, name="n", drill="scale")
# What `**name` in a call stands for: file, name -> the fields.
SPREAD: dict[tuple[str, str], set[str]] = {
    ("members.py", "fields"): set(Description.model_fields) - {"protocol", "name", "refusal", "bases", "frozen"},
    ("tri_redundant.py", "fields"): {*Training.model_fields, *reply_fields(LIAR, None, 0, 0)} - {"seconds"},
    ("recorder.py", "fields"): {"round", "digest", "files", "kept"},
    ("recorder.py", "state['summary']"): set(round_summary({}, [], 1.0, 0, 0)),
    ("app.py", "origin"): {"recipe_hash", "versions"},
    ("run.py", "origin"): {"recipe_hash", "versions"},
}


def documented() -> dict[str, set[str]]:
    """Kind of event -> its fields, of the page; "" has those of every event."""
    found: dict[str, set[str]] = {}
    for section in re.split(r"^##+ ", PAGE, flags=re.MULTILINE)[1:]:
        heading = section.splitlines()[0]
        rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
        found[{"Every event": ""}.get(heading, heading)] = {
            name for row in rows for name in re.findall("`([^`]+)`", row)
        }
    return {kind: fields for kind, fields in found.items() if fields and kind != "Beside the journal"}


def written() -> Iterator[tuple[str, str, set[str]]]:
    """Where, kind and fields of every call that writes an event."""
    for package in ("strategies", "server", "scripts", "clients", "trfmoe_core"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
                    continue
                kind = node.args[0]
                if node.func.attr not in WRITERS or not node.keywords:
                    continue
                if not (isinstance(kind, ast.Constant) and isinstance(kind.value, str)):
                    assert ast.unparse(node) == "self.journal.append(kind, **fields)", f"{path}: names no kind"
                    continue
                fields: set[str] = set()
                for keyword in node.keywords:
                    fields |= {keyword.arg} if keyword.arg else SPREAD[path.name, ast.unparse(keyword.value)]
                yield f"{path.relative_to(ROOT)}:{node.lineno}", kind.value, fields


def names_of(event: dict[str, Any], known: set[str]) -> Iterator[str]:
    """The fields of an event as the page names them: those of nested values where the page has them."""
    for name, value in event.items():
        inner = [value] if not isinstance(value, dict) else list(value.values())
        if any(field.startswith(f"{name}.*.") for field in known):
            yield from (f"{name}.*.{key}" for one in inner for key in one)
        elif any(field.startswith(f"{name}[].") for field in known):
            yield from (f"{name}[].{key}" for one in value for key in one)
        else:
            yield name


def test_the_page_names_what_the_code_writes_and_nothing_else() -> None:
    known = documented()
    kinds = set()
    for where, kind, fields in written():
        assert kind in known, f"{where}: docs/journal.md has no section {kind}"
        plain = {field.partition(".")[0].partition("[")[0] for field in known[kind]}
        assert fields <= plain, f"{where}: docs/journal.md lacks {sorted(fields - plain)} of {kind}"
        kinds.add(kind)
    assert kinds == known.keys() - {""}, "a section for an event that nobody writes"


@pytest.fixture(scope="module")
def journals(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The events of a federation with everything in it, and of a run on one machine that was made longer."""
    folder = tmp_path_factory.mktemp("journals")
    nodes = []
    for number, name in enumerate(("ada", "bob", "cyd", "dan")):
        (folder / f"{name}.txt").write_text(words(number, 4000))
        small = {"min_steps": 1, "min_batch": 1, "min_tokens": 1, "min_evaluation_tokens": 1}
        node = {"name": name, "data": [f"{name}.txt"], "state_dir": "state", "cache_dir": "cache", "limits": small}
        nodes.append(node)
    nodes[3] |= {"drill": {"attack": "scale", "factor": -300.0}}
    rounds = {"num_rounds": 3, "local_steps": 2, "nodes_deadline_s": 1.0, "reply_deadline_s": 60.0}
    (folder / "witness.txt").write_text(words(9, 4000))
    raw = {
        **TINY,
        "run_root": "runs",
        "nodes": nodes,
        "rounds": rounds,
        "experts": {"unheld": "absent"},
        "witness": {"data": ["witness.txt"], "windows": 4},
        "reputation": {"strikes": 1},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRFMOE_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        run, events = run_recipe(Recipe.model_validate(raw).resolved(folder))
        _keep_sample(run, "a text")
        single = {**TINY, "data": {**TINY["data"], "sources": ["ada.txt"]}, "rounds": {"local_steps": 2}}
        Path("one.yaml").write_text(dump_yaml({**single, "training": {**TINY["training"], "steps": 4}}))
        train("one.yaml")
        train("one.yaml", "--resume", "--set", "training.steps=6")
    local = read_events(folder / "runs" / "tiny-local-001" / "events.jsonl")
    return [*events, *read_events(run.events_path)[-1:], *local]


def train(*arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", *arguments])
    assert ended.value.code == 0


def test_every_field_of_real_journals_is_on_the_page(journals: list[dict[str, Any]]) -> None:
    known = documented()
    seen: dict[str, set[str]] = {}
    for event in journals:
        kind = event["event"]
        fields = set(names_of(event, known[kind]))
        assert fields - known[""] <= known[kind], f"docs/journal.md lacks fields of {kind}"
        assert known[""] <= fields
        seen.setdefault(kind, set()).update(fields - known[""])
    assert {"run_started", "recipe_changed", "judgement", "witnessed", "node_quarantined", "sample"} <= seen.keys()
    # Only these need faults that do not happen here.
    rest = {kind: fields - seen.get(kind, set()) for kind, fields in known.items() if kind}
    rest = {kind: fields for kind, fields in rest.items() if fields}
    assert rest.keys() <= {"node_refused", "node_suspect", "node_reply", "warning", "waiting"}
    assert rest.get("node_reply", set()) <= {"claims_drill", "phase"}
    starts = [event for event in journals if event["event"] == "run_started"]
    assert {event["journal_schema"] for event in starts} == {JOURNAL_SCHEMA}
    assert f"version\n{JOURNAL_SCHEMA} of the schema" in PAGE or f"version {JOURNAL_SCHEMA} of the schema" in PAGE


def test_the_example_reads_a_journal(journals: list[dict[str, Any]], tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    (example,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(example.strip().splitlines()) <= 5
    path = tmp_path / "events.jsonl"
    path.write_text("".join(json.dumps(event) + "\n" for event in journals))
    names: dict[str, Any] = {}
    exec(compile(example.replace("runs/demo-001/events.jsonl", str(path)), "the example", "exec"), names)
    assert set(names["replies"].node) >= {"ada", "bob", "cyd", "dan"}
