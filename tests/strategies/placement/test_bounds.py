"""What colluders capture: the quick count equals trying every set of nodes, and the bound holds."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.placement.bounds import capture_bound, captured_exactly, pair_bound, pair_counts
from strategies.placement.zones import Zones


@st.composite
def any_groups(draw: st.DrawFn, replication: int = 3) -> tuple[int, list[list[int]]]:
    nodes = draw(st.integers(replication, 8))
    group = st.lists(st.integers(0, nodes - 1), min_size=replication, max_size=replication, unique=True)
    return nodes, draw(st.lists(group, min_size=1, max_size=20))


def by_trying(groups: list[list[int]], nodes: int, colluders: int) -> int:
    return max(
        sum(2 * len(set(group) & set(some)) > len(group) for group in groups)
        for some in combinations(range(nodes), colluders)
    )


@settings(max_examples=40, deadline=None)
@given(any_groups(), st.sampled_from([2, 3]))
def test_exact_count_equals_trying_all(case: tuple[int, list[list[int]]], colluders: int) -> None:
    nodes, groups = case
    assert captured_exactly(groups, nodes, colluders) == by_trying(groups, nodes, colluders)


@settings(max_examples=20, deadline=None)
@given(any_groups(replication=5), st.sampled_from([2, 3]))
def test_exact_count_with_five_replicas(case: tuple[int, list[list[int]]], colluders: int) -> None:
    nodes, groups = case
    assert captured_exactly(groups, nodes, colluders, 5) == by_trying(groups, nodes, colluders)


@settings(max_examples=40, deadline=None)
@given(any_groups(), st.integers(2, 4))
def test_no_set_of_nodes_captures_more_than_the_bound(case: tuple[int, list[list[int]]], colluders: int) -> None:
    nodes, groups = case
    loads = [sum(node in group for group in groups) for node in range(nodes)]
    bound = capture_bound(colluders, max(pair_counts(groups).values()), max(loads))
    assert by_trying(groups, nodes, min(colluders, nodes)) <= bound


def test_the_bound_counts_pairs_and_seats() -> None:
    assert capture_bound(2, 1, 15) == 1
    assert capture_bound(3, 2, 8) == 6
    assert capture_bound(4, 3, 6) == 12
    assert capture_bound(3, 2, 8, replication=5) == 2
    with pytest.raises(ValueError, match="4 colluders"):
        captured_exactly([[0, 1, 2]], 3, 4)


@pytest.mark.parametrize(
    ("nodes", "experts", "zones", "bound"),
    [
        (7, 14, 0, 2),
        (12, 32, 0, 2),
        (31, 155, 0, 1),
        (1000, 4096, 0, 1),
        (9, 24, 3, 3),
        (12, 32, 4, 2),
        (15, 25, 3, 1),
        (15, 35, 5, 2),
        (31, 155, 4, 2),
    ],
)
def test_lower_bound_of_lambda(nodes: int, experts: int, zones: int, bound: int) -> None:
    of = {str(node): f"zone-{node % zones}" for node in range(nodes)} if zones else {}
    assert pair_bound(experts, Zones.read([str(node) for node in range(nodes)], of, 3)) == bound


def test_two_zones_that_take_part_in_every_expert_bound_lambda() -> None:
    zones = Zones.read(list("abcdefghij"), dict(zip("abcdefghij", "xxxxxxyyzz", strict=True)), 3)
    assert pair_bound(30, zones) == 8
