"""First placements meet every quota exactly and keep zones apart."""

from collections import Counter
from itertools import combinations
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.placement.bounds import pair_counts
from strategies.placement.initial import level_start, steiner_start
from strategies.placement.zones import Zones, quotas
from tests.strategies.placement.test_zones import zones_of


@settings(max_examples=80, deadline=None)
@given(
    st.text("abcdef.", min_size=5, max_size=12),
    st.lists(st.integers(1, 8), min_size=1, max_size=4),
    st.sampled_from([3, 5]),
)
def test_level_start_meets_quotas_and_zones(labels: str, sizes: list[int], replication: int) -> None:
    zones = zones_of(labels, replication)
    share = quotas(sum(sizes), zones)
    groups = level_start(sizes, share, zones, Random(0))
    assert len(groups) == sum(sizes)
    assert all(len(set(group)) == replication for group in groups)
    held = Counter(node for group in groups for node in group)
    assert [held[node] for node in range(len(labels))] == share
    if zones.separable:
        assert all(len({zones.of[node] for node in group}) == replication for group in groups)


def test_level_start_evens_out_every_layer() -> None:
    zones = Zones.read([str(node) for node in range(10)], {}, 3)
    groups = level_start([8] * 6, quotas(48, zones), zones, Random(0))
    for layer in range(6):
        held = Counter(node for group in groups[8 * layer : 8 * layer + 8] for node in group)
        assert {held[node] for node in range(10)} <= {2, 3}


@pytest.mark.parametrize(("nodes", "experts", "pair_max"), [(7, 14, 2), (8, 16, 2), (31, 155, 1), (64, 512, 1)])
def test_steiner_start_shares_no_more_than_it_says(nodes: int, experts: int, pair_max: int) -> None:
    share = quotas(experts, Zones.read([str(node) for node in range(nodes)], {}, 3))
    groups = steiner_start([experts], share, pair_max, Random(0))
    assert groups is not None
    assert max(pair_counts(groups).values()) == pair_max
    assert sorted(Counter(node for group in groups for node in group).values()) == sorted(share)
    assert all(len(set(trio)) == 3 for trio in groups)


def test_steiner_start_declines_what_does_not_fit() -> None:
    assert steiner_start([30], [9] * 10, 2, Random(0)) is None
    assert steiner_start([400], [4] * 300, 1, Random(0)) is None


def test_copies_of_a_system_seldom_repeat_a_trio() -> None:
    groups = steiner_start([14], [6] * 7, 2, Random(0))
    assert groups is not None
    assert len({frozenset(group) for group in groups}) > 12
    assert all(count == 2 for count in pair_counts(groups).values())
    assert len(list(combinations(range(7), 2))) == len(pair_counts(groups))
