"""`trfmoe configs`: the project's recipes are listed, shown, copied and checked."""

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.main import main
from scripts.run.recipes import SCHEMA, bundled_recipes, read_facts
from tests.places import ROOT


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ending:
        main(["configs", *arguments])
    return int(ending.value.code or 0)


def result(capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert isinstance(found, dict)
    return found


def test_ls_says_what_each_is_for(capfd: pytest.CaptureFixture[str]) -> None:
    assert call("ls", "--json") == 0
    rows = result(capfd)["recipes"]
    assert {row["name"] for row in rows} == {path.stem for path in (ROOT / "configs").glob("*.yaml")}
    for row in rows:
        assert all(len(row[name]) > 5 for name in ("purpose", "size", "memory", "time")), row
    assert call("ls") == 0
    assert "nine_nodes\n    nine nodes in three zones" in capfd.readouterr().out


def test_facts_are_read_from_the_head_alone() -> None:
    head = "# yaml-language-server: x\n# Purpose: one\n#   two\n# Size: 3\n#\n# Time\nname: x\n# Memory: no\n"
    facts = read_facts(head)
    assert (facts.purpose, facts.size, facts.memory, facts.time) == ("one two", "3", "", "")


def test_show_prints_the_file(capfd: pytest.CaptureFixture[str]) -> None:
    assert call("show", "tiny") == 0
    assert capfd.readouterr().out == (ROOT / "configs" / "tiny.yaml").read_text(encoding="utf-8")
    assert call("show", "no-such-recipe") == 2


def test_a_copy_is_the_recipe_and_finds_the_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("cp", "three_nodes", "mine.yaml") == 0
    first, *rest = Path("mine.yaml").read_text().splitlines()
    assert first == f"# yaml-language-server: $schema={SCHEMA}"
    assert rest == (ROOT / "configs" / "three_nodes.yaml").read_text().splitlines()[1:]
    assert call("cp", "tiny", ".") == 0
    assert Path("tiny.yaml").is_file()
    assert call("cp", "tiny", "mine.yaml") == 2
    assert "mine.yaml: exists already" in capfd.readouterr().err
    assert call("cp", "tiny", "nowhere/mine.yaml") == 2
    assert call("check", "mine.yaml", "tiny.yaml") == 0


def test_check_lists_the_problems_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("first.yaml").write_text("name: a\nmodel: {widht: 64}\n")
    Path("second.yaml").write_text("name: a\nvote: loudest\n")
    Path("third.yaml").write_text("name: a\nrounds: {num_rounds: 1, local_steps: 4}\n")
    assert call("check", "first.yaml", "second.yaml", "third.yaml") == 2
    shown = capfd.readouterr()
    assert "did you mean 'width'" in shown.err
    assert "vote: 'loudest' is unknown" in shown.err
    assert "third.yaml: ok, for a federation of 3 nodes" in shown.out
    assert "warning: third.yaml: training.warmup_steps: 20 is more than half" in shown.err
    assert call("check", "third.yaml", "--set", "training.optimizer=magic") == 2
    assert "training.optimizer: 'magic' is unknown" in capfd.readouterr().err


def test_check_takes_every_recipe_of_the_project(capfd: pytest.CaptureFixture[str]) -> None:
    assert call("check", *(path.stem for path in bundled_recipes()), "--json") == 0
    written = capfd.readouterr()
    assert "warning" not in written.err
    kinds = {name: facts["kind"] for name, facts in json.loads(written.out.splitlines()[-1])["recipes"].items()}
    assert kinds["single"] == kinds["shakespeare"] == "for one machine"
    assert kinds["nine_nodes"] == "for a federation of 9 nodes"
