"""Placement: three distinct nodes an expert, balanced, the same for the same names."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.placement import place
from trfmoe_core.blocks import TRUNK
from trfmoe_core.errors import PlacementError


def experts(layers: int, count: int) -> list[str]:
    return [f"layers.{layer}.experts.{number}" for layer in range(layers) for number in range(count)]


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 20), st.integers(1, 4), st.integers(1, 16))
def test_distinct_balanced_and_reproducible(num_nodes: int, layers: int, count: int) -> None:
    nodes = [f"node-{number}" for number in range(num_nodes)]
    placement = place(experts(layers, count), nodes)
    assert place(experts(layers, count), nodes[::-1]) == placement
    for block, holders in placement.holders.items():
        assert len(set(holders)) == (num_nodes if block == TRUNK else 3)
        assert list(holders) == sorted(holders)
    loads = placement.loads()
    assert sum(loads.values()) == 3 * layers * count
    assert max(loads.values()) - min(loads.values()) <= 1
    shared = dict.fromkeys(combinations(placement.nodes, 2), 0)
    for block, holders in placement.holders.items():
        if block != TRUNK:
            for pair in combinations(holders, 2):
                shared[pair] += 1
    assert placement.pair_max() == max(shared.values())


def test_three_nodes_hold_everything() -> None:
    placement = place(experts(2, 4), ["c", "a", "b"])
    assert placement.held_by("a") == [*experts(2, 4), TRUNK]


def test_fewer_than_three_names_are_refused() -> None:
    with pytest.raises(PlacementError, match="2 nodes"):
        place(experts(1, 4), ["a", "b", "a"])
