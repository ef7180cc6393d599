"""Every recipe of the project can be read, and the demo has its liar."""

from pathlib import Path

import pytest

from scripts.main import main
from tests.conftest import words
from tests.places import ROOT
from trfmoe_core.config import load_recipe

FOLDER = ROOT / "configs"
NODES = {"single": 0, "shakespeare": 0, "strangers": 6, "nine_nodes": 9}


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


def test_the_demo_is_told_to_lie() -> None:
    drills = [node.drill for node in load_recipe(FOLDER / "demo.yaml").nodes]
    assert [drill and (drill.attack, drill.factor, drill.from_round) for drill in drills] == [
        None,
        None,
        ("scale", -10.0, 4),
    ]
