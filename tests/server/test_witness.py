"""The witness on the coordinator: which windows, and which losses."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from server.run_folder.folder import RunFolder
from server.witness import Witness
from strategies.witness.jury import Jury
from tests.conftest import words
from trfmoe_core.blocks import BlockLayout
from trfmoe_core.config import Recipe
from trfmoe_core.data.tokenizers import load_tokenizer
from trfmoe_core.errors import DataError, RunFolderError
from trfmoe_core.model.transformer import build_model

Maker = Callable[..., Recipe]


@pytest.fixture
def recipe(tiny_recipe: Maker, tmp_path: Path) -> Recipe:
    for number in range(2):
        (tmp_path / f"public-{number}.txt").write_text(words(10 + number, 3000))
    return tiny_recipe(witness={"data": ["public-0.txt", "public-1.txt"], "windows": 5}).resolved(tmp_path)


def prepare(recipe: Recipe, folder: Path, salt: str = "salt") -> Witness:
    witness = Witness.prepare(recipe, load_tokenizer("byte"), folder / "cache", salt)
    assert witness is not None
    return witness


def test_windows_are_fresh_every_round_and_the_same_in_every_run(recipe: Recipe, tmp_path: Path) -> None:
    witness = prepare(recipe, tmp_path)
    first = witness.windows(1)
    assert [drawn.shape for drawn in first] == [(5, recipe.model.context + 1)] * 2
    assert len(np.unique(np.concatenate(first), axis=0)) == 10
    assert np.array_equal(first, prepare(recipe, tmp_path).windows(1))
    assert not np.array_equal(first, witness.windows(2))


def test_who_knows_the_seed_does_not_know_the_windows(recipe: Recipe, tmp_path: Path) -> None:
    folders = [RunFolder.create(tmp_path / "runs", recipe) for _ in range(2)]
    salts = [folder.witness_salt() for folder in folders]
    assert len({*salts}) == 2, "one secret a run"
    assert all(len(salt) == 32 for salt in salts)
    assert RunFolder.open(folders[0].path).witness_salt() == salts[0], "the same when the run goes on"
    assert (folders[0].path / "witness.salt").stat().st_mode & 0o777 == 0o600
    drawn = [prepare(recipe, tmp_path, salt).windows(1) for salt in salts]
    assert not np.array_equal(*drawn)


def test_a_salt_of_ones_own_makes_two_runs_judge_by_the_same_text(recipe: Recipe, tmp_path: Path) -> None:
    assert recipe.witness is not None
    salted = recipe.model_copy(update={"witness": recipe.witness.model_copy(update={"salt": "sixteen letters.."})})
    folder = RunFolder.create(tmp_path / "runs", salted)
    assert folder.witness_salt() == "sixteen letters.."
    assert not (folder.path / "witness.salt").exists()
    assert salted.for_nodes() == recipe.for_nodes(), "no node is told"


def test_a_salt_that_cannot_be_read_is_named(recipe: Recipe, tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "runs", recipe)
    for content in (b"", b"\xff\xfe"):
        (folder.path / "witness.salt").write_bytes(content)
        with pytest.raises(RunFolderError, match=r"witness\.salt: .*put the run's own file back"):
            folder.witness_salt()


def test_the_loss_of_each_window_is_the_models(recipe: Recipe, tmp_path: Path) -> None:
    witness = prepare(recipe, tmp_path)
    model = build_model(recipe.model, load_tokenizer("byte").padded_vocab_size, 7)
    blocks = BlockLayout.of(dict(model.named_parameters())).gather(dict(model.named_parameters()))
    losses = witness.loss(3)(blocks)
    model.requires_grad_(False)
    assert [(part.shape, part.dtype) for part in losses] == [((5,), torch.float64)] * 2
    for drawn, part in zip(witness.windows(3), losses, strict=True):
        for window, loss in zip(torch.from_numpy(drawn), part, strict=True):
            expected = model(window[None, :-1], window[None, 1:]).cross_entropy
            assert float(loss) == pytest.approx(float(expected), abs=1e-5)


def test_a_short_source_gives_what_it_has(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "public-1.txt").write_text("a short text\n\n" + "b " * 40)
    assert 2 <= len(prepare(recipe, tmp_path).windows(1)[1]) < 5
    (tmp_path / "public-1.txt").write_text("too short")
    with pytest.raises(DataError, match=r"witness\.data: .*public-1\.txt gives 1 window of 32 tokens"):
        prepare(recipe, tmp_path)


def test_without_a_witness_there_is_none(tiny_recipe: Maker, tmp_path: Path) -> None:
    assert Witness.prepare(tiny_recipe(), load_tokenizer("byte"), tmp_path, "") is None


def test_a_jury_with_a_real_model_convicts_the_node_that_breaks_it(recipe: Recipe, tmp_path: Path) -> None:
    witness = prepare(recipe, tmp_path)
    model = build_model(recipe.model, load_tokenizer("byte").padded_vocab_size, 0)
    parameters = dict(model.named_parameters())
    layout = BlockLayout.of(parameters)
    base = layout.gather(parameters)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    windows = torch.from_numpy(np.concatenate(witness.windows(99)))
    for _ in range(10):
        optimizer.zero_grad()
        model(windows[:, :-1], windows[:, 1:]).loss.backward()
        optimizer.step()
    honest = {name: flat - base[name] for name, flat in layout.gather(parameters).items()}
    replicas = {"a": honest, "b": honest, "liar": {name: -update for name, update in honest.items()}}
    assert recipe.witness is not None
    holders = dict.fromkeys(layout.names, ("a", "b", "liar"))
    assert Jury(recipe.witness).judge(base, replicas, holders, witness.loss(1)).convicted == ("liar",)
