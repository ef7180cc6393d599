"""First placements, which the swap search then mends: level by level, or cut from a Steiner triple system.

Legend: a group is the list of the numbers of an expert's nodes; `layer_sizes` are the experts of every layer, and
groups come layer by layer.
"""

import heapq
from collections.abc import Sequence
from random import Random

import numpy as np
from numpy.typing import NDArray

from strategies.placement.bounds import pair_counts
from strategies.placement.steiner import next_admissible, triple_system
from strategies.placement.zones import Zones

STEINER_NODES = 200
"""With more nodes, choosing among the N^2/6 triples of a system is too slow, unless all of them are used."""


def level_start(layer_sizes: Sequence[int], quotas: Sequence[int], zones: Zones, random: Random) -> list[list[int]]:
    """Returns the nodes of each expert: every quota is met exactly, and an expert's nodes are in different zones.

    Replicas are dealt one after another. A zone or node that could not meet its quota otherwise comes first. Then
    comes the node with the fewest experts of this layer, then the one with the most quota left, then the one that
    shares the fewest experts with the nodes chosen before (their largest number first, then their sum).

    Args:
        layer_sizes: Experts of each layer.
        quotas: Experts of each node.
        zones: The zone of each node.
        random: Breaks ties.
    """
    zone_N = np.array(zones.of)
    left_N = np.array(quotas)
    left_Z = np.bincount(zone_N, weights=left_N).astype(np.int64)
    shared: list[list[int]] = [[] for _ in quotas]
    groups: list[list[int]] = []
    experts_left = sum(layer_sizes)
    for size in layer_sizes:
        layer_N = np.zeros_like(left_N) if zones.even else -(left_N * size // experts_left)
        for _ in range(size):
            group = _next_group(left_N, left_Z, layer_N, zone_N, shared, experts_left, zones, random)
            for node in group:
                shared[node] += [other for other in group if other != node]
            groups.append(group)
            experts_left -= 1
    return groups


def _next_group(
    left_N: NDArray[np.int64],
    left_Z: NDArray[np.int64],
    layer_N: NDArray[np.int64],
    zone_N: NDArray[np.int64],
    shared: list[list[int]],
    experts_left: int,
    zones: Zones,
    random: Random,
) -> list[int]:
    need_Z = np.maximum(left_Z - zones.limit * (experts_left - 1), 0)
    room_Z = np.maximum(need_Z, zones.limit)
    open_N = left_N > 0
    most_N = np.zeros_like(left_N)
    sum_N = np.zeros_like(left_N)
    group: list[int] = []
    for _ in range(zones.replication):
        able_N = open_N & (room_Z[zone_N] > 0)
        must_N = able_N & ((need_Z[zone_N] > 0) | (left_N == experts_left))
        able = np.flatnonzero(must_N if must_N.any() else able_N)
        for key_N in (layer_N, -left_N, most_N, sum_N):
            key = key_N[able]
            able = able[key == key.min()]
        node = int(able[int(random.random() * len(able))])
        group.append(node)
        open_N[node] = False
        need_Z[zone_N[node]] -= 1
        room_Z[zone_N[node]] -= 1
        if len(group) < zones.replication and shared[node]:
            with_N = np.bincount(shared[node], minlength=len(left_N))
            np.maximum(most_N, with_N, out=most_N)
            sum_N += with_N
    left_N[group] -= 1
    layer_N[group] += 1
    np.subtract.at(left_Z, zone_N[group], 1)
    return group


def steiner_start(
    layer_sizes: Sequence[int], quotas: Sequence[int], pair_max: int, random: Random
) -> list[list[int]] | None:
    """Returns the nodes of each expert, taken from `pair_max` Steiner triple systems; None if that does not fit.

    If the number of nodes is not 1 or 3 (mod 6), the triples of the next larger system that use only existing nodes
    are taken. Two nodes share at most `pair_max` experts before the quotas are repaired at the end.

    Args:
        layer_sizes: Experts of each layer.
        quotas: Experts of each node, met exactly.
        pair_max: Number of systems.
        random: Chooses the systems' order of nodes.
    """
    nodes, num_experts = len(quotas), sum(layer_sizes)
    points = next_admissible(nodes)
    perfect = points == nodes and num_experts == pair_max * nodes * (nodes - 1) // 6
    if nodes > STEINER_NODES and not perfect:
        return None
    triples = [triple for triple in triple_system(points) if triple[-1] < nodes]
    if len(triples) * pair_max < num_experts:
        return None
    # Each copy is rotated by one, so that two experts seldom have the same three nodes.
    pool = [[(node + copy) % nodes for node in triple] for copy in range(pair_max) for triple in triples]
    _shuffle(pool, random)
    pool, _ = _least_loaded(pool, num_experts, [0] * nodes)
    _meet_quotas(pool, quotas, pair_max)
    groups: list[list[int]] = []
    load = [0] * nodes
    for size in layer_sizes:
        chosen, pool = _least_loaded(pool, size, load)
        groups += chosen
    return groups


def _shuffle(pool: list[list[int]], random: Random) -> None:
    # Python promises only for random() that later versions return the same numbers.
    for last in range(len(pool) - 1, 0, -1):
        other = int(random.random() * (last + 1))
        pool[last], pool[other] = pool[other], pool[last]


def _least_loaded(pool: list[list[int]], count: int, load: list[int]) -> tuple[list[list[int]], list[list[int]]]:
    """Takes `count` groups, each time one whose nodes have the fewest experts in this layer and then in all."""
    in_layer = [0] * len(load)
    scale = 3 * (sum(load) + 3 * count + 1)

    def key(group: Sequence[int]) -> int:
        return sum(in_layer[node] ** 2 for node in group) * scale + sum(load[node] for node in group)

    heap = [(key(group), number) for number, group in enumerate(pool)]
    heapq.heapify(heap)
    chosen: list[int] = []
    while len(chosen) < count:
        old, number = heap[0]
        new = key(pool[number])
        # Loads only grow, so an outdated entry is too small: it is pushed back with its current load.
        if new > old:
            heapq.heapreplace(heap, (new, number))
            continue
        heapq.heappop(heap)
        chosen.append(number)
        for node in pool[number]:
            in_layer[node] += 1
            load[node] += 1
    taken = set(chosen)
    return [pool[number] for number in chosen], [group for n, group in enumerate(pool) if n not in taken]


def _meet_quotas(groups: list[list[int]], quotas: Sequence[int], pair_max: int) -> None:
    """Replaces nodes above their quota by nodes below it, where that costs least in shared experts."""
    shared = pair_counts(groups)
    loads = [0] * len(quotas)
    for group in groups:
        for node in group:
            loads[node] += 1
    excess = [0] * len(quotas)
    # Any node may get a larger quota; those that already hold most get it.
    for node, quota in zip(
        sorted(range(len(loads)), key=lambda n: -loads[n]), sorted(quotas, reverse=True), strict=True
    ):
        excess[node] = loads[node] - quota
    for heavy in range(len(quotas)):
        while excess[heavy] > 0:
            _, light, number = min(
                (
                    sum(max(0, shared[_pair(light, other)] + 1 - pair_max) for other in group if other != heavy),
                    light,
                    number,
                )
                for light in range(len(quotas))
                if excess[light] < 0
                for number, group in enumerate(groups)
                if heavy in group and light not in group
            )
            group = groups[number]
            for other in group:
                if other != heavy:
                    shared[_pair(heavy, other)] -= 1
                    shared[_pair(light, other)] += 1
            group[group.index(heavy)] = light
            excess[heavy] -= 1
            excess[light] += 1


def _pair(a: int, b: int) -> tuple[int, int]:
    return (a, b) if a < b else (b, a)
