"""The vote on momentum: who counts, how long it may be, and what a false one does."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from strategies.placement.placement import place
from strategies.round.momentum_vote import MomentumVote
from strategies.voting.vote import Agreement, Verdict
from trfmoe_core.blocks import TRUNK, BlockLayout, Blocks
from trfmoe_core.config import Recipe
from trfmoe_core.errors import WireError
from trfmoe_core.model.transformer import parameter_shapes
from trfmoe_core.training.shared_momentum import PREFIX, momentum_names, momentum_of, replace_momentum, with_momentum

NAMES = ("ada", "bob", "cyd")
MODEL: dict[str, Any] = {
    "layers": 1, "width": 16, "heads": 2, "experts": 4, "top_k": 2, "expert_width": 16, "context": 16
}  # fmt: skip
RECIPE = Recipe.model_validate({"model": MODEL, "training": {"optimizer": "muon"}, "rounds": {"momentum_every": 1}})
PLAIN = BlockLayout.of(parameter_shapes(RECIPE.model, 32))
LAYOUT = with_momentum(PLAIN, RECIPE.model)
PLACEMENT = place(PLAIN.experts, list(NAMES))
ALL = {block: Verdict(outcome="unanimous", accepted=NAMES) for block in PLAIN.names}


def momentum(seed: int, size: float = 0.01) -> Blocks:
    """What an honest node may send: partly the same as the others', partly its own."""
    both, own = torch.Generator().manual_seed(0), torch.Generator().manual_seed(1 + seed)
    found = {}
    for name in momentum_names(LAYOUT, PLAIN.names):
        count = LAYOUT.specs[name].numel
        values = torch.randn(count, generator=both) + torch.randn(count, generator=own)
        found[name.removeprefix(PREFIX)] = values * (size / float(values.norm()))
    return found


HONEST = [momentum(seed) for seed in range(2)]
MEAN = {block: (HONEST[0][block] + HONEST[1][block]) / 2 for block in HONEST[0]}


def voted(
    third: Blocks | None, verdicts: dict[str, Verdict] = ALL, recipe: Recipe = RECIPE
) -> tuple[Blocks, list[str]]:
    vote = MomentumVote(recipe, LAYOUT, Agreement())
    for name, sent in zip(NAMES, [*HONEST, third], strict=True):
        if sent is not None:
            vote.check(sent)
            vote.add(name, sent)
    told = vote.decide(PLACEMENT, verdicts)
    return vote.voted, told


def likeness(found: Blocks) -> float:
    """The smallest cosine of a block with the mean of the two honest nodes."""
    return min(float(torch.cosine_similarity(found[block], MEAN[block], dim=0)) for block in MEAN)


@pytest.mark.parametrize(
    ("lie", "told"),
    [
        (lambda own: {block: -values for block, values in own.items()}, True),
        (lambda own: {block: 90 * values for block, values in own.items()}, True),
        (lambda own: {block: -90 * values for block, values in own.items()}, True),
        (lambda own: {block: 0 * values for block, values in own.items()}, True),
        (lambda own: {block: values[torch.randperm(len(values))] for block, values in own.items()}, False),
        (lambda own: own, False),
    ],
)
def test_one_false_momentum_of_three_changes_little(lie: Callable[[Blocks], Blocks], told: bool) -> None:
    found, lines = voted(lie(momentum(2)))
    assert found.keys() == MEAN.keys()
    assert likeness(found) > 0.75
    assert all(float(values.norm()) <= 0.0101 for values in found.values())
    assert bool(lines) == told
    if told:
        (line,) = lines
        assert line.startswith("the momentum of cyd is outvoted in 5 of the 5 blocks")


def test_what_no_training_makes_is_refused() -> None:
    vote = MomentumVote(RECIPE, LAYOUT, Agreement())
    for factor, told in (
        (101.5, "has the norm 1.0"),
        (float("nan"), "has the norm nan"),
        (float("inf"), "norm (inf|nan)"),
    ):
        with pytest.raises(WireError, match=f"the momentum of block '.*' {told}" if factor < 200 else told):
            vote.check({block: factor * values for block, values in momentum(0).items()})
    vote.check({block: 100 * values for block, values in momentum(0).items()})


def test_only_accepted_nodes_count() -> None:
    verdicts = dict(ALL)
    verdicts[TRUNK] = Verdict(outcome="majority", accepted=NAMES[:2], outvoted=("cyd",))
    verdicts["layers.0.experts.1"] = Verdict(outcome="unverified", accepted=NAMES[:1])
    verdicts["layers.0.experts.2"] = Verdict(outcome="kept")
    found, _ = voted(momentum(2), verdicts)
    assert torch.allclose(found[TRUNK], MEAN[TRUNK], atol=1e-6)
    assert sorted(found) == ["layers.0.experts.0", "layers.0.experts.3", TRUNK]


def test_the_plain_mean_stays_plain() -> None:
    recipe = RECIPE.model_copy(update={"vote": "mean"})
    lie = {block: -values for block, values in momentum(2).items()}
    found, lines = voted(lie, recipe=recipe)
    assert not lines
    expected = (HONEST[0][TRUNK] + HONEST[1][TRUNK] + lie[TRUNK]) / 3
    assert torch.allclose(found[TRUNK], expected, atol=1e-6)


def test_a_vote_takes_what_has_arrived_once() -> None:
    vote = MomentumVote(RECIPE, LAYOUT, Agreement())
    for name, sent in zip(NAMES, HONEST, strict=False):
        vote.add(name, sent)
    vote.decide(PLACEMENT, ALL)
    assert vote.voted
    assert vote.decide(PLACEMENT, ALL) == []
    assert not vote.voted


def test_only_hidden_matrices_have_a_momentum_and_an_expert_without_state_gets_one() -> None:
    trunk = [slot.tensor for slot in LAYOUT.specs[PREFIX + TRUNK].slots]
    assert trunk
    assert all(".attention." in name for name in trunk)
    sent = {PREFIX + block: values for block, values in HONEST[0].items()}
    # Nothing was trained: experts get a state, the trunk does not, for AdamW's moments would be missing.
    fresh = replace_momentum({}, HONEST[0], LAYOUT)
    assert sorted(name for name in fresh if name.startswith("updates.")) == [f"updates.{b}" for b in PLAIN.experts]
    full = replace_momentum({f"updates.{TRUNK}": torch.tensor(3), "exp_avg.x": torch.ones(1)}, HONEST[0], LAYOUT)
    again = momentum_of(full, LAYOUT, PLAIN.names)
    assert again.keys() == sent.keys()
    assert all(torch.equal(again[name], sent[name]) for name in sent)
    assert full["exp_avg.x"] == 1
    assert full[f"updates.{TRUNK}"] == 3
