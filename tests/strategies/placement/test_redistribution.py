"""Dealing: only the given replicas get a new holder, and loads come out level even where the greedy order fails."""

from strategies.placement.placement import Placement, place
from strategies.placement.redistribution import Dealing
from tests.strategies.placement.test_placement import experts, in_zones, names
from trfmoe_core.blocks import TRUNK


def test_a_chain_levels_what_greedy_leaves() -> None:
    # x goes to c or d, y only to c: dealt in this order, x must be handed on
    holders = {
        "layers.0.experts.0": ("a", "b", "g"),
        "layers.0.experts.1": ("a", "d", "g"),
        "layers.0.experts.2": ("b", "d", "e"),
        "layers.0.experts.3": ("a", "b", "e"),
        "layers.0.experts.4": ("c", "d", "e"),
        TRUNK: ("a", "b", "c", "d", "e", "g"),
    }
    placement = Placement(epoch=1, nodes=("a", "b", "c", "d", "e", "g"), holders=holders)
    dealing = Dealing(placement, "g")
    dealt = dealing.deal(placement.held_by("g"))
    assert set(dealt) == {"layers.0.experts.0", "layers.0.experts.1"}
    assert all(len(set(nodes)) == 3 and "g" not in nodes for nodes in dealt.values())
    assert max(dealing.loads.values()) - min(dealing.loads.values()) <= 1


def test_another_zone_comes_before_an_even_load() -> None:
    placement = place(experts(1, 24), names(9), zones=in_zones(9, 3))
    dealt = Dealing(placement, "node-0000").deal(placement.held_by("node-0000"))
    zones = in_zones(9, 3)
    for nodes in dealt.values():
        assert len({zones[name] for name in nodes}) == 3


def test_the_same_every_time() -> None:
    placement = place(experts(4, 8), names(9))
    blocks = placement.held_by("node-0003")
    assert Dealing(placement, "node-0003").deal(blocks) == Dealing(placement, "node-0003").deal(blocks)
