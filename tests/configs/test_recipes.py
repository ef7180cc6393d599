"""Every recipe of the project can be read, and the demo has its liar."""

import json
import re
from pathlib import Path

import pytest

from scripts.main import main
from scripts.run.recipes import read_facts
from scripts.terminal.console import quantity
from tests.conftest import words
from tests.places import ROOT
from trfmoe_core.config import load_recipe

FOLDER = ROOT / "configs"
NODES = {"single": 0, "dense": 0, "shakespeare": 0, "strangers": 6, "nine_nodes": 9}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.name)
def test_recipe(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name.replace("-", "_") == path.stem
    assert len(recipe.nodes) == NODES.get(path.stem, 3)


def test_the_recipe_for_one_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It stands as it is but for stand-ins: other text, a small tokenizer, and in training a smaller model."""
    recipe = load_recipe(FOLDER / "single.yaml")
    shape = recipe.model
    assert (shape.width, shape.layers, shape.heads, shape.experts, shape.top_k) == (768, 12, 12, 8, 2)
    assert (shape.context, recipe.training.batch_size, recipe.data.tokenizer) == (1024, 8, "gpt2")
    assert (recipe.training.learning_rate, recipe.training.epochs) == (1e-4, 3)
    assert (recipe.local.evaluate_every, recipe.local.save_every) == (500, 1000)
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("fineweb", "pdfs")):
        Path(name).mkdir()
        Path(name, "text.txt").write_text(words(number, 3000))
    stand_ins = ["data.tokenizer=byte", "data.sources.0=fineweb"]
    small = {"layers": 1, "width": 24, "expert_width": 16, "context": 32}
    smaller = [*stand_ins, *(f"model.{key}={value}" for key, value in small.items()), "data.evaluation_tokens=256"]
    for settings, more in ((stand_ins, ["--dry-run"]), ([*smaller, "training.steps=3", "training.device=cpu"], [])):
        with pytest.raises(SystemExit) as exit_info:
            main(["train", "single", *[part for one in settings for part in ("--set", one)], *more])
        written = capfd.readouterr()
        assert exit_info.value.code in (0, None), written
    assert "step 3/3  loss" in written.out


GPT2 = {"single", "fineweb_125m"}
"""Recipes whose tokenizer and text have to be downloaded."""


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_recipe_says_its_size_and_memory_as_they_are_planned(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    facts = read_facts(path.read_text(encoding="utf-8"))
    rows = ["--set", "model.vocab_size=50304"] if path.stem in GPT2 else []
    device = ["--device", "cuda" if path.stem == "fineweb_125m" else "cpu"]
    assert call("plan", path.stem, *rows, *device, "--json") == 0
    planned = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert facts.size.startswith(f"{quantity(planned['parameters'])} parameters, {planned_layers(path)}"), planned
    memory = planned.get("memory_gpu") or planned["memory_node"]
    told = re.match(r"([\d.]+) GB", facts.memory)
    assert told, facts.memory
    assert float(told[1]) == pytest.approx(sum(memory.values()) / 1e9, rel=0.1)


def planned_layers(path: Path) -> str:
    model = load_recipe(path).model
    return f"{model.layers} layer{'s' * (model.layers > 1)} of {model.experts} experts"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_dry_run_of_every_recipe(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Stand-ins take the place of what has to be downloaded; all else is as it stands."""
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(path)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "text.txt").write_text(words(1, 3000))
    given = ["--set", "data.tokenizer=byte"] if path.stem in GPT2 else []
    if recipe.data.sources:
        command, given = "train", [*given, "--set", "data.sources=[text]"]
    else:
        command, given = "simulate", [*given, *(["--pdfs", "text"] * len(recipe.nodes))]
    if recipe.witness:
        given += ["--set", "witness.data=[text]"]
    assert call(command, path.stem, *given, "--dry-run") == 0, capfd.readouterr()
    assert "warning" not in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["shakespeare", "strangers", "nine_nodes"])
def test_a_short_run_of_a_recipe_that_no_other_test_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nodes, sizes and sample data are as they stand; rounds and steps are few."""
    monkeypatch.chdir(tmp_path)
    command, few = "simulate", ["rounds.num_rounds=2", "rounds.local_steps=2"]
    if NODES[name]:
        assert call("data", "sample", "data/sample") == 0
    else:
        Path("data/shakespeare").mkdir(parents=True)
        Path("data/shakespeare/input.txt").write_text(words(0, 20_000))
        command, few = "train", ["training.steps=4", "training.warmup_steps=1", "local.evaluate_every=2"]
    given = [part for one in (*few, "data.evaluation_tokens=2048") for part in ("--set", one)]
    assert call(command, str(FOLDER / f"{name}.yaml"), *given, "--json") == 0, capfd.readouterr()
    ended = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert (ended["outcome"], ended["rounds"], len(ended["ledger"])) == ("completed", 2, NODES[name])
    assert ended["bits_per_byte"][-1] < ended["bits_per_byte"][0]


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ending:
        main(list(arguments))
    return int(ending.value.code or 0)


def test_the_demo_is_told_to_lie() -> None:
    drills = [node.drill for node in load_recipe(FOLDER / "demo.yaml").nodes]
    assert [drill and (drill.attack, drill.factor, drill.from_round) for drill in drills] == [
        None,
        None,
        ("scale", -10.0, 4),
    ]
