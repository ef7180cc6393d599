"""Ballots: what counts, and that every block is voted on by the norms of its own replicas."""

import pytest
import torch
from torch import Tensor

from strategies.placement.placement import place
from strategies.round.ballots import Ballots
from strategies.round.disputes import Disputes
from strategies.voting.vote import Agreement
from strategies.witness.jury import Jury
from trfmoe_core.blocks import TRUNK, Blocks
from trfmoe_core.config import WitnessConfig
from trfmoe_core.errors import WireError

BLOCKS = {"layers.0.experts.0": 5, "layers.0.experts.1": 5, "trunk": 11}


def ballots_of(scale: dict[str, float]) -> Ballots:
    placement = place(["layers.0.experts.0", "layers.0.experts.1"], ["a", "b", "c"], 1)
    ballots = Ballots(placement, "majority", Agreement())
    for name, factor in scale.items():
        ballots.add(name, {block: torch.full((size,), factor) for block, size in BLOCKS.items()})
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


def test_the_witness_decides_whose_replicas_count() -> None:
    placement = place(["layers.0.experts.0", "layers.0.experts.1"], ["a", "b", "c", "d"], 1)
    ballots = Ballots(placement, "majority", Agreement())
    for name in "abcd":
        factor = -1.0 if name == "c" else 1.0 + 0.1 * (name == "a")
        blocks = placement.held_by(name)
        ballots.add(name, {block: torch.full((BLOCKS[block],), factor) for block in blocks})
    judge_of = Jury(WitnessConfig(data=["-"]))

    def loss(blocks: Blocks) -> list[Tensor]:
        distance = sum(float((flat - 2.0).square().mean()) for flat in blocks.values())
        return [torch.tensor([distance, distance + 1e-9])]

    base = {block: torch.zeros(size) for block, size in BLOCKS.items()}
    assert ballots.judge(judge_of, base, loss).convicted == ("c",)
    for block, update, verdict in ballots.decide(lambda block: None, {}):
        holders = placement.holders[block]
        assert update is not None
        assert verdict.outvoted == tuple(name for name in holders if name == "c")
        assert verdict.accepted == tuple(name for name in holders if name != "c"), "equal replicas are all named"
        assert verdict.outcome == ("majority" if "c" in holders else "unanimous")
        values = {1.1 if name == "a" else 1.0 for name in verdict.accepted}
        assert update.tolist() == [pytest.approx(sum(values) / len(values))] * BLOCKS[block], "and count once"


def test_experts_and_trunk_have_rules_of_their_own() -> None:
    placement = place(["layers.0.experts.0", "layers.0.experts.1"], ["a", "b", "c"], 1)
    ballots = Ballots(placement, "median", Agreement(), "mean")
    for name, factor in {"a": 1.0, "b": 2.0, "c": 6.0}.items():
        ballots.add(name, {block: torch.full((size,), factor) for block, size in BLOCKS.items()})
    found = {}
    for block, update, verdict in ballots.decide(lambda block: None, {}):
        assert update is not None
        found[block] = (verdict.outcome, update.tolist())
    assert found == {block: ("mean", [3.0] * 11) if block == "trunk" else ("median", [2.0] * 5) for block in BLOCKS}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_one_value_that_is_not_finite_spoils_the_whole_reply(value: float) -> None:
    ballots = ballots_of({"a": 1.0})
    updates = {block: torch.ones(size) for block, size in BLOCKS.items()}
    updates["trunk"][7] = value
    with pytest.raises(WireError, match=r"block 'trunk': the update is not finite"):
        ballots.add("b", updates)
    assert ballots.voters == ["a"]
    with pytest.raises(WireError, match="second reply"):
        ballots.add("a", updates)


def test_a_refused_node_is_outvoted_alone_and_its_values_do_not_count() -> None:
    ballots = ballots_of({"a": 1.0, "b": 2.0})
    ballots.refuse("c")
    with pytest.raises(WireError, match="second reply"):
        ballots.admits("c")
    for block, update, verdict in ballots.decide(lambda block: None, {}):
        assert update is not None
        assert update.tolist() == [pytest.approx(1.5)] * BLOCKS[block]
        assert (verdict.outcome, verdict.accepted, verdict.outvoted) == ("majority", ("a", "b"), ("c",))
        assert (verdict.alone, verdict.missing, verdict.invalid) == ("c", (), ())


def test_a_node_that_points_away_on_the_whole_is_outvoted_where_its_blocks_agree() -> None:
    draw = torch.Generator().manual_seed(0)
    size = 16 * 500
    experts = ["layers.0.experts.0", "layers.0.experts.1"]
    common = {block: torch.randn(size, generator=draw) for block in (*experts, "trunk")}
    for pooled, outvoted in ((None, ()), (0.0, ("c",))):
        ballots = Ballots(place(experts, ["a", "b", "c"], 1), "majority", Agreement(pooled_cosine=pooled))
        for name, sign in (("a", 1), ("b", 1), ("c", -1)):
            noise = {block: 3.5 * torch.randn(size, generator=draw) for block in common}
            ballots.add(name, {block: sign * common[block] + noise[block] for block in common})
        verdicts = [verdict for _, _, verdict in ballots.decide(lambda block: None, {})]
        assert [verdict.outvoted for verdict in verdicts] == [outvoted] * 3
        assert all(verdict.alone == (outvoted[0] if outvoted else None) for verdict in verdicts)


def test_of_two_that_contradict_each_other_one_is_left_out_without_a_strike() -> None:
    draw = torch.Generator().manual_seed(0)
    blocks = [TRUNK, *(f"layers.0.experts.{number}" for number in range(8))]
    sent = {name: {b: torch.randn(4000, generator=draw) for b in blocks} for name in "ab"}
    sent["c"] = {b: 0.4 * sent["a"][b] - 0.9 * sent["b"][b] for b in blocks}
    ballots = Ballots(
        place(blocks[1:], ["a", "b", "c"], 1), "majority", Agreement(pooled_cosine=0.0), None, None, Disputes()
    )
    for name, updates in sent.items():
        ballots.add(name, updates)
    for block, update, verdict in ballots.decide(lambda block: None, {}):
        assert update is not None
        assert torch.allclose(update, (sent["a"][block] + sent["b"][block]) / 2, atol=1e-6)
        assert (verdict.accepted, verdict.outvoted, verdict.alone) == (("a", "b"), ("c",), None)
    assert ballots.left_out == [("b", "c")]
