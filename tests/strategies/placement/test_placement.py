"""Placement: distinct holders, balanced, few shared experts, zones apart, the same for the same names."""

import hashlib
import json
import random
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.placement.bounds import capture_bound
from strategies.placement.placement import Placement, place
from trfmoe_core.blocks import TRUNK
from trfmoe_core.errors import PlacementError


def experts(layers: int, count: int) -> list[str]:
    return [f"layers.{layer}.experts.{number}" for layer in range(layers) for number in range(count)]


def names(count: int) -> list[str]:
    return [f"node-{number:04d}" for number in range(count)]


def in_zones(nodes: int, zones: int) -> dict[str, str | None]:
    return {name: f"zone-{number % zones}" for number, name in enumerate(names(nodes))}


def spread(placement: Placement) -> int:
    loads = placement.loads().values()
    return max(loads) - min(loads)


@settings(max_examples=50, deadline=None)
@given(st.integers(3, 20), st.integers(1, 4), st.integers(1, 16), st.randoms(use_true_random=False))
def test_distinct_balanced_and_reproducible(num_nodes: int, layers: int, count: int, shuffle: random.Random) -> None:
    nodes, blocks = names(num_nodes), experts(layers, count)
    placement = place(blocks, nodes)
    shuffle.shuffle(nodes)
    shuffle.shuffle(blocks)
    assert place(blocks, nodes) == placement
    assert list(placement.holders) == [*experts(layers, count), TRUNK]
    for block, holders in placement.holders.items():
        assert len(set(holders)) == (num_nodes if block == TRUNK else 3)
        assert list(holders) == sorted(holders)
    assert sum(placement.loads().values()) == 3 * layers * count
    assert spread(placement) <= 1
    shared = dict.fromkeys(combinations(placement.nodes, 2), 0)
    for holders in placement.experts.values():
        for pair in combinations(holders, 2):
            shared[pair] += 1
    assert placement.pair_max() == max(shared.values())
    # one above the bound only where no design exists (N = 2 mod 3)
    assert placement.pair_max() - placement.pair_bound() <= (num_nodes % 3 == 2)
    for colluders in (2, 3):
        bound = capture_bound(colluders, placement.pair_max(), max(placement.loads().values()))
        assert placement.captured_by(colluders) <= bound


@pytest.mark.parametrize(
    ("nodes", "count", "pair_max", "by_two", "by_three"),
    [
        (3, 8, 8, 8, 8),
        (4, 8, 4, 4, 8),
        (5, 8, 3, 3, 7),
        (6, 8, 2, 2, 6),
        (7, 7, 1, 1, 3),
        (7, 14, 2, 2, 6),
        (8, 16, 2, 2, 6),
        (9, 12, 1, 1, 3),
        (9, 24, 2, 2, 6),
        (10, 30, 2, 2, 6),
        (12, 32, 2, 2, 6),
        (15, 35, 1, 1, 3),
        (16, 64, 2, 2, 6),
        (24, 64, 1, 1, 3),
        (31, 155, 1, 1, 3),
        (32, 128, 1, 1, 3),
        (64, 512, 1, 1, 3),
        (100, 256, 1, 1, 3),
        (1000, 4096, 1, 1, 3),
    ],
)
def test_the_lower_bound_is_reached(nodes: int, count: int, pair_max: int, by_two: int, by_three: int) -> None:
    placement = place(experts(1, count), names(nodes))
    assert placement.pair_max() == placement.pair_bound() == pair_max
    assert spread(placement) <= 1
    assert placement.captured_by(2) == by_two
    assert placement.captured_by(3) <= by_three
    assert all(len(set(holders)) == 3 for holders in placement.experts.values())


@pytest.mark.parametrize(
    ("nodes", "count", "zones", "pair_max"),
    [
        (9, 24, 3, 3),
        (12, 32, 3, 2),
        (12, 32, 4, 2),
        (15, 25, 3, 1),
        (15, 35, 5, 2),
        (31, 155, 4, 2),
        (100, 256, 5, 1),
    ],
)
def test_zones_apart_and_shared_experts_at_the_cross_zone_bound(
    nodes: int, count: int, zones: int, pair_max: int
) -> None:
    placement = place(experts(1, count), names(nodes), zones=in_zones(nodes, zones))
    assert placement.pair_max() == placement.pair_bound() == pair_max
    assert spread(placement) <= 1
    assert placement.zone_violations() == []
    assert placement.captured_by_zone() == 0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from("abcdef") | st.none(), min_size=3, max_size=14), st.integers(1, 2), st.integers(1, 12))
def test_zones_stay_apart_wherever_they_can(labels: list[str | None], layers: int, count: int) -> None:
    nodes = names(len(labels))
    placement = place(experts(layers, count), nodes, zones=dict(zip(nodes, labels, strict=True)))
    zones = placement.read_zones
    if zones.separable:
        assert placement.zone_violations() == []
        assert placement.captured_by_zone() == 0
    if zones.even:
        assert spread(placement) <= 1


@pytest.mark.parametrize(
    ("nodes", "layers", "count"), [(3, 4, 8), (7, 2, 7), (9, 4, 8), (10, 5, 6), (12, 8, 8), (64, 8, 64)]
)
def test_every_layer_is_balanced_too(nodes: int, layers: int, count: int) -> None:
    placement = place(experts(layers, count), names(nodes))
    assert placement.layer_spread() <= 1
    assert placement.pair_max() == placement.pair_bound()


def test_three_nodes_hold_everything() -> None:
    placement = place(experts(2, 4), ["c", "a", "b"])
    assert placement.held_by("a") == [*experts(2, 4), TRUNK]


def test_above_a_hundred_nodes_the_bound_is_given() -> None:
    placement = place(experts(1, 101), names(101))
    assert (placement.captured_by(2), placement.captured_by(3), placement.captured_by(4)) == (1, 3, 6)


def test_no_experts_leave_the_trunk() -> None:
    placement = place([], names(3))
    assert placement.holders == {TRUNK: tuple(names(3))}
    assert (placement.pair_max(), placement.pair_bound(), placement.captured_by(3)) == (0, 0, 0)


def test_fewer_than_three_names_are_refused() -> None:
    with pytest.raises(PlacementError, match="2 nodes"):
        place(experts(1, 4), ["a", "b", "a"])


@pytest.mark.parametrize("replication", [1, 2, 4, 6])
def test_replication_without_a_majority_is_refused(replication: int) -> None:
    with pytest.raises(PlacementError, match=f"replication {replication}: .*(majority|outvote)"):
        place(experts(1, 4), names(9), replication=replication)


@pytest.mark.parametrize(("nodes", "count"), [(5, 8), (11, 40), (21, 21)])
def test_five_replicas(nodes: int, count: int) -> None:
    placement = place(experts(1, count), names(nodes), replication=5)
    assert all(len(set(holders)) == 5 for holders in placement.experts.values())
    assert spread(placement) <= 1
    assert placement.captured_by(2) == 0
    with pytest.raises(PlacementError, match="needs 5 distinct"):
        place(experts(1, 4), names(4), replication=5)


def test_the_same_on_every_machine_and_in_every_release() -> None:
    # a change here moves the experts of every federation that starts anew: say so in the commit
    placement = place(experts(4, 8), names(12), zones=in_zones(12, 4))
    text = json.dumps(placement.holders, sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "74f3ac63cd39ae6b"
