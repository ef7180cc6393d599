"""Zones: who shares one, and how many experts every node should hold."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.placement.zones import Zones, quotas


def zones_of(labels: str, replication: int = 3) -> Zones:
    """One node a letter; a dot is a node without a zone."""
    nodes = [f"node-{number}" for number in range(len(labels))]
    named = {node: None if label == "." else label for node, label in zip(nodes, labels, strict=True)}
    return Zones.read(nodes, named, replication)


def test_a_node_without_a_zone_is_one_of_its_own() -> None:
    zones = zones_of("ab.a.")
    assert zones.of == (0, 1, 2, 0, 3)
    assert zones.sizes == (2, 1, 1, 1)
    assert zones.stated
    assert not zones_of("...").stated


def test_even_loads_and_separation_go_together_up_to_a_third() -> None:
    assert zones_of("aabbcc").even
    assert zones_of("aab.c.").even
    assert not zones_of("aaabbc").even
    assert not zones_of("aabb").separable
    assert zones_of("aabb").limit == 2
    assert zones_of("aabb").even


def test_loads_give_way_where_one_zone_is_too_large() -> None:
    assert quotas(30, zones_of("aaaaaabbcc")) == [5] * 6 + [15] * 4
    assert quotas(10, zones_of("aaab.cd")) == [4, 3, 3, 5, 5, 5, 5]


@settings(max_examples=150, deadline=None)
@given(st.text("abcdef.", min_size=3, max_size=14), st.integers(1, 40), st.sampled_from([3, 5]))
def test_quotas_add_up_and_can_be_met(labels: str, experts: int, replication: int) -> None:
    if len(labels) < replication:
        labels += "." * (replication - len(labels))
    zones = zones_of(labels, replication)
    share = quotas(experts, zones)
    assert sum(share) == replication * experts
    assert min(share) >= 0
    assert max(share) <= experts
    if zones.even:
        assert max(share) - min(share) <= 1
    if zones.separable:
        in_zone: Counter[int] = Counter()
        for zone, count in zip(zones.of, share, strict=True):
            in_zone[zone] += count
        assert max(in_zone.values()) <= experts
