"""One machine and a federation: the same text, the same held-out pieces, and the same model to begin with."""

from pathlib import Path

import pytest
import torch

from scripts.experiments.sides import DealtText, Side, alone, expert_load, rate_of, train_side
from tests.conftest import words
from trfmoe_core.config import Recipe
from trfmoe_core.data.tokenizers import load_tokenizer
from trfmoe_core.errors import ConfigError
from trfmoe_core.model.transformer import build_model

BASE = {
    "model": {"layers": 1, "width": 32, "heads": 2, "experts": 4, "top_k": 1, "expert_width": 16, "context": 16},
    "data": {"piece_bytes": 256, "evaluation_tokens": 1024},
    "training": {"batch_size": 4, "device": "cpu"},
    "rounds": {"num_rounds": 2, "local_steps": 10},
}


def dealt(folder: Path, count: int, *names: str) -> DealtText:
    text = DealtText(folder, names or ("one",))
    pieces = {name: words(number, 4000).split("\n\n") for number, name in enumerate(text.names)}
    text.deal(pieces, [count])
    return text


def test_every_piece_is_dealt_once_and_each_node_has_one_text(tmp_path: Path) -> None:
    pieces = {"a": [f"a{number}" for number in range(5)], "b": ["b0", "b1"]}
    text = DealtText(tmp_path, ("a", "b"))
    text.deal(pieces, [3])
    first, second, third = (file.read_text().split("\n\n") for file in text.files(3))
    assert (first, second, third) == (["a0", "a2", "a4"], ["b0", "b1"], ["a1", "a3"])


def test_held_out_pieces_are_nobodys_training_text(tmp_path: Path) -> None:
    text, recipe = dealt(tmp_path, 4, "a", "b"), Recipe.model_validate(BASE)
    sources = text.corpus(recipe, 4).sources
    trained = {tuple(row) for source in sources for row in source.train.digests.tolist()}
    held = {tuple(row) for source in sources for row in source.held_out.digests.tolist()}
    assert held and not held & trained
    windows = text.held_out(recipe, 4)
    assert list(windows) == ["a", "b"]
    counted = sum(int(found.mask.sum()) for found in windows.values())
    assert counted == sum(source.held_out.num_tokens - source.held_out.num_pieces for source in sources)


def test_both_sides_learn_and_are_measured_on_the_same_text(tmp_path: Path) -> None:
    text = dealt(tmp_path, 3)
    settings = {"training.optimizer": "muon", "rounds.num_rounds": 2}
    fed = Side(name="fed", parts=3, nodes=3, settings=settings)
    one = Side(name="one", parts=3, nodes=1, settings={**settings, "training.batch_size": 12})
    losses = {}
    for side in (fed, one):
        cell = side.cell(0.01, 5)
        assert rate_of(cell) == 0.01
        recipe = side.recipe(BASE, 0.01)
        assert recipe.training.last_learning_rate == pytest.approx(0.001)
        result = train_side(recipe, side, cell, text)
        assert result.ended, result.reason
        losses[side.name] = result.losses["one"]
        assert 0 <= result.facts["least, one"] <= 1 <= result.facts["most, one"]
    assert max(losses.values()) < 5.0, "a model that has learnt nothing has 5.5 nats"
    assert losses["fed"] != losses["one"]


def test_one_machine_reads_all_files_alike_for_as_many_steps(tmp_path: Path) -> None:
    recipe = Recipe.model_validate(BASE)
    side = Side(name="one", parts=3, nodes=1, settings={})
    found = alone(recipe, side.cell(0.001, 9), [tmp_path / "a.txt", tmp_path / "b.txt"], tmp_path)
    assert (found.training.steps, found.seed, len(found.data.sources)) == (20, 9, 2)


def test_the_load_differs_where_two_texts_use_other_experts(tmp_path: Path) -> None:
    text, recipe = dealt(tmp_path, 3, "a", "b"), Recipe.model_validate(BASE)
    model = build_model(recipe.model, load_tokenizer("byte").padded_vocab_size, 0)
    windows = text.held_out(recipe, 3)
    alike = expert_load(model, {"a": windows["a"], "b": windows["a"]})
    assert alike["difference"] == 0.0
    assert 0 < expert_load(model, windows)["difference"] < 1
    torch.nn.init.zeros_(next(p for name, p in model.named_parameters() if "router" in name))
    assert expert_load(model, windows)["most, a"] == recipe.model.experts, "a tie goes to one expert"


def test_a_setting_that_there_is_not_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"outer\.speed"):
        Side(name="x", parts=3, nodes=3, settings={"outer.speed": 2}).recipe(BASE, 0.1)
