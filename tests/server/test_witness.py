"""The witness on the coordinator: which windows, and which losses."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from server.witness import Witness
from strategies.witness import Jury
from tests.conftest import words
from trfmoe_core.blocks import BlockLayout
from trfmoe_core.config import Recipe
from trfmoe_core.data.tokenizer import load_tokenizer
from trfmoe_core.model.transformer import build_model

Maker = Callable[..., Recipe]


@pytest.fixture
def recipe(tiny_recipe: Maker, tmp_path: Path) -> Recipe:
    for number in range(2):
        (tmp_path / f"public-{number}.txt").write_text(words(10 + number, 3000))
    return tiny_recipe(witness={"data": ["public-0.txt", "public-1.txt"], "windows": 5}).resolved(tmp_path)


def prepare(recipe: Recipe, folder: Path) -> Witness:
    witness = Witness.prepare(recipe, load_tokenizer("byte"), folder / "cache")
    assert witness is not None
    return witness


def test_windows_are_fresh_every_round_and_the_same_in_every_run(recipe: Recipe, tmp_path: Path) -> None:
    witness = prepare(recipe, tmp_path)
    first = witness.windows(1)
    assert first.shape == (10, recipe.model.context + 1)
    assert len(np.unique(first, axis=0)) == 10
    assert np.array_equal(first, prepare(recipe, tmp_path).windows(1))
    assert not np.array_equal(first, witness.windows(2))


def test_the_loss_of_each_window_is_the_models(recipe: Recipe, tmp_path: Path) -> None:
    witness = prepare(recipe, tmp_path)
    model = build_model(recipe.model, load_tokenizer("byte").padded_vocab_size, 7)
    blocks = BlockLayout.of(dict(model.named_parameters())).gather(dict(model.named_parameters()))
    losses = witness.loss(3)(blocks)
    model.requires_grad_(False)
    assert (losses.shape, losses.dtype) == ((10,), torch.float64)
    for window, loss in zip(torch.from_numpy(witness.windows(3)), losses, strict=True):
        expected = model(window[None, :-1], window[None, 1:]).cross_entropy
        assert float(loss) == pytest.approx(float(expected), abs=1e-5)


def test_a_short_source_gives_what_it_has(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "public-1.txt").write_text("a short text\n\n" + "b " * 40)
    assert 5 < len(prepare(recipe, tmp_path).windows(1)) < 10


def test_without_a_witness_there_is_none(tiny_recipe: Maker, tmp_path: Path) -> None:
    assert Witness.prepare(tiny_recipe(), load_tokenizer("byte"), tmp_path) is None


def test_a_jury_with_a_real_model_convicts_the_node_that_breaks_it(recipe: Recipe, tmp_path: Path) -> None:
    witness = prepare(recipe, tmp_path)
    model = build_model(recipe.model, load_tokenizer("byte").padded_vocab_size, 0)
    parameters = dict(model.named_parameters())
    layout = BlockLayout.of(parameters)
    base = layout.gather(parameters)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    windows = torch.from_numpy(witness.windows(99))
    for _ in range(10):
        optimizer.zero_grad()
        model(windows[:, :-1], windows[:, 1:]).loss.backward()
        optimizer.step()
    honest = {name: flat - base[name] for name, flat in layout.gather(parameters).items()}
    replicas = {"a": honest, "b": honest, "liar": {name: -update for name, update in honest.items()}}
    assert recipe.witness is not None
    holders = dict.fromkeys(layout.names, ("a", "b", "liar"))
    assert Jury(recipe.witness).judge(base, replicas, holders, witness.loss(1)).convicted == ("liar",)
