"""The swap search keeps loads and zones, reaches its goal where it can, and is the same everywhere."""

from collections import Counter
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.placement.bounds import pair_counts
from strategies.placement.initial import level_start
from strategies.placement.swap_search import Goal, SwapSearch
from strategies.placement.zones import Zones, quotas
from tests.strategies.placement.test_zones import zones_of


def flat(layers: int, nodes: int, most: int) -> tuple[list[list[int]], list[list[int]]]:
    return [[0] * nodes for _ in range(layers)], [[most] * nodes for _ in range(layers)]


def test_reaches_a_design_of_ten_points() -> None:
    zones = Zones.read([str(node) for node in range(10)], {}, 3)
    groups = level_start([30], quotas(30, zones), zones, Random(0))
    assert max(pair_counts(groups).values()) > 2
    search = SwapSearch(groups, [0] * 30, zones, Goal(2, *flat(1, 10, 9)), Random(0))
    assert search.run(20_000)
    assert set(pair_counts(search.groups).values()) == {2}


def test_exchanges_layers_of_a_full_design() -> None:
    # the Fano plane twice: each layer is to get every node three times
    fano = [[0, 1, 2], [0, 3, 4], [0, 5, 6], [1, 3, 5], [1, 4, 6], [2, 3, 6], [2, 4, 5]]
    zones = Zones.read([str(node) for node in range(7)], {}, 3)
    groups = sorted(fano + fano)
    goal = Goal(2, [[3] * 7] * 2, [[3] * 7] * 2)
    search = SwapSearch(groups, [0] * 7 + [1] * 7, zones, goal, Random(0))
    assert search.run(5_000)
    for layer in range(2):
        held = Counter(n for group, at in zip(search.groups, search.layers, strict=True) if at == layer for n in group)
        assert set(held.values()) == {3}
    assert sorted(map(sorted, search.groups)) == groups


@settings(max_examples=40, deadline=None)
@given(st.text("abcde.", min_size=5, max_size=10), st.integers(4, 16), st.integers(0, 300))
def test_no_move_breaks_loads_zones_or_makes_it_worse(labels: str, experts: int, budget: int) -> None:
    zones = zones_of(labels)
    sizes = [experts // 2, experts - experts // 2]
    share = quotas(experts, zones)
    start = level_start(sizes, share, zones, Random(1))
    layers = [0] * sizes[0] + [1] * sizes[1]

    def searched() -> SwapSearch:
        search = SwapSearch(start, layers, zones, Goal(1, *flat(2, len(labels), 1)), Random(2))
        search.run(budget)
        return search

    def above(groups: list[list[int]]) -> int:
        return sum((count - 1) ** 2 for count in pair_counts(groups).values())

    search = searched()
    assert (search.groups, search.layers) == (searched().groups, searched().layers)
    assert above(search.groups) <= above(start)
    assert Counter(search.layers) == Counter(layers)
    held = Counter(node for group in search.groups for node in group)
    assert [held[node] for node in range(len(labels))] == share
    assert all(len(set(group)) == 3 for group in search.groups)
    if zones.separable:
        assert all(len({zones.of[node] for node in group}) == 3 for group in search.groups)
