"""Ballots: what counts, and that every block is voted on by the norms of its own replicas."""

import pytest
import torch

from strategies.ballots import Ballots
from strategies.placement import place
from strategies.voting import Agreement
from trfmoe_core.errors import WireError

BLOCKS = {"layers.0.experts.0": 5, "layers.0.experts.1": 5, "trunk": 11}


def ballots_of(scale: dict[str, float]) -> Ballots:
    placement = place(["layers.0.experts.0", "layers.0.experts.1"], ["a", "b", "c"], 1)
    ballots = Ballots(placement, "majority", Agreement())
    for name, factor in scale.items():
        ballots.add(name, {block: torch.full((size,), factor) for block, size in BLOCKS.items()}, 100)
    return ballots


def test_every_block_gets_its_own_result_while_it_is_asked_for() -> None:
    seen = {}
    for block, update, verdict in ballots_of({"a": 1.0, "b": 2.0, "c": -1.0}).decide(lambda block: None, {}):
        assert update is not None
        seen[block] = update.tolist()
        assert verdict.outvoted == ("c",)
    # The louder of the two is shortened to their middle norm.
    assert seen == {block: [pytest.approx(1.25)] * size for block, size in BLOCKS.items()}


def test_a_lone_replica_is_capped_by_its_norm() -> None:
    [update] = [
        u.clone() for b, u, _ in ballots_of({"a": 3.0}).decide(lambda b: 1.0, {}) if b == "trunk" and u is not None
    ]
    assert float(update.norm()) == pytest.approx(1 / 3)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_one_value_that_is_not_finite_spoils_the_whole_reply(value: float) -> None:
    ballots = ballots_of({"a": 1.0})
    updates = {block: torch.ones(size) for block, size in BLOCKS.items()}
    updates["trunk"][7] = value
    with pytest.raises(WireError, match=r"block 'trunk': the update is not finite"):
        ballots.add("b", updates, 100)
    assert ballots.voters == ["a"]
    with pytest.raises(WireError, match="second reply"):
        ballots.add("a", updates, 100)
