"""The recipes that are compared train on equal tokens, and every promise can be broken."""

from scripts.continuing.judged import BEFORE, GENERAL, Scores, judge, over_central
from scripts.continuing.trained import CENTRAL, TOGETHER, all_sources, comparisons
from tests.places import ROOT
from trfmoe_core.config import load_recipe
from trfmoe_core.model.stock.upcycling import Upcycling

OWNERS = ("law", "code")


def failed(**changes: dict[str, float]) -> list[str]:
    bits = {
        BEFORE: {"law": 4.0, "code": 5.0, GENERAL: 3.0},
        TOGETHER: {"law": 3.0, "code": 3.0, GENERAL: 3.05},
        "law": {"law": 2.9, "code": 5.0, GENERAL: 3.3},
        "code": {"law": 4.5, "code": 2.9, GENERAL: 3.3},
        CENTRAL: {"law": 2.95, "code": 2.97, GENERAL: 3.1},
    }
    for model, change in changes.items():
        bits[model].update(change)
    scores = Scores(OWNERS, bits)
    expected = sum(bits[TOGETHER][one] for one in OWNERS) / sum(bits[CENTRAL][one] for one in OWNERS)
    assert abs(over_central(scores) - expected) < 1e-9
    return [promise for promise, kept, _ in judge(scores) if not kept]


def test_every_promise_can_be_broken() -> None:
    assert failed() == []
    assert failed(together={GENERAL: 3.1}) == ["general text needs at most 1.03 of what it needed before"]
    assert failed(law={"law": 2.0, "code": 3.9}) == ["together is better than every owner alone, over all domains"]
    assert "the model has learnt every owner's domain" in failed(together={"code": 5.0})


def test_one_machine_sees_the_text_and_the_tokens_of_all() -> None:
    recipe = load_recipe(ROOT / "configs" / "continue.yaml")
    found = comparisons(recipe)
    assert list(found) == [*(node.name for node in recipe.nodes), CENTRAL]
    tokens = {name: one.training.steps * one.training.batch_size for name, one in found.items() if one.training.steps}
    node = recipe.rounds.num_rounds * recipe.rounds.local_steps * recipe.training.batch_size
    assert tokens == {**dict.fromkeys((one.name for one in recipe.nodes), node), CENTRAL: 3 * node}
    assert found["law"].data.sources == recipe.nodes[0].data and not found["law"].nodes
    weights = {entry.path: entry.weight for entry in all_sources(recipe)}  # type: ignore[union-attr]
    general = {f"data/sample/{name}": 3.0 for name in ("language", "network", "numbers")}
    assert weights == {f"data/continue/{node.name}": 12.0 for node in recipe.nodes} | general


def test_the_recipe_is_what_the_import_makes_of_the_dense_model() -> None:
    recipe, dense = (load_recipe(ROOT / "configs" / f"{name}.yaml") for name in ("continue", "dense"))
    shape = {key: getattr(recipe.model, key) for key in ("experts", "top_k", "expert_width", "shared_width")}
    assert shape == Upcycling().shape(dense.model.expert_width)
    for key in ("layers", "width", "heads", "context"):
        assert getattr(recipe.model, key) == getattr(dense.model, key)
    liar = recipe.nodes[2].drill
    assert liar and liar.attack == "sign_flip" and liar.to_round and liar.to_round < recipe.rounds.num_rounds
