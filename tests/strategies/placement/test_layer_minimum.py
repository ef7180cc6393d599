"""Every node holds enough experts of every layer, and no more moves than that takes."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.placement.changes import join, leave, moved
from strategies.placement.layer_minimum import with_floor
from strategies.placement.placement import Placement, layer_of, place
from trfmoe_core.errors import PlacementError


def blocks(layers: int, experts: int) -> list[str]:
    return [f"layers.{layer}.experts.{expert}" for layer in range(layers) for expert in range(experts)]


def fewest(placement: Placement) -> int:
    held = Counter((name, layer_of(expert)) for expert, names in placement.experts.items() for name in names)
    layers = {layer_of(expert) for expert in placement.experts}
    return min(held[name, layer] for name in placement.nodes for layer in layers)


def check_sound(placement: Placement) -> None:
    assert all(len(set(names)) == 3 for names in placement.experts.values())


@settings(max_examples=40, deadline=None)
@given(nodes=st.integers(3, 9), layers=st.integers(1, 3), experts=st.integers(2, 12), floor=st.integers(1, 3))
def test_the_floor_holds_through_leaving_and_joining(nodes: int, layers: int, experts: int, floor: int) -> None:
    names = [f"n{number}" for number in range(nodes)]
    placement = place(blocks(layers, experts), names)
    if 3 * experts < floor * nodes:
        with pytest.raises(PlacementError, match=rf"{experts} experts.*{3 * experts} seats.*top_k"):
            with_floor(placement, floor)
        return
    steps = [placement]
    if nodes > 3:
        steps.append(leave(with_floor(placement, floor), "n0"))
    if 3 * experts >= floor * (nodes + 1):
        steps.append(join(with_floor(steps[-1], floor), "z"))
    for step in steps:
        mended = with_floor(step, floor)
        check_sound(mended)
        assert fewest(mended) >= floor
        assert mended.epoch == step.epoch and mended.nodes == step.nodes
        loads = mended.loads().values()
        before = step.loads().values()
        assert max(loads) - min(loads) <= max(max(before) - min(before), 2 * floor * layers)


def test_what_is_enough_stays_as_it_is() -> None:
    placement = place(blocks(2, 8), ["a", "b", "c", "d"])
    assert with_floor(placement, 2) is placement


def test_only_what_is_lacking_moves_and_zones_stay_apart() -> None:
    zones = {"a": "x", "b": "x", "c": "y", "d": "z", "e": "w"}
    placement = place(blocks(2, 6), list(zones), zones=zones)
    holders = dict(placement.holders)
    for expert in blocks(1, 6):  # nobody of zone x has anything of the first layer
        holders[expert] = ("c", "d", "e")
    bare = Placement(epoch=1, nodes=placement.nodes, holders=holders, zones=placement.zones)
    mended = with_floor(bare, 2)
    assert fewest(mended) >= 2 and not mended.zone_violations()
    assert {name: len(gained) for name, gained in moved(bare, mended).items() if name in "ab"} == {"a": 2, "b": 2}
