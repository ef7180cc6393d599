"""What colluding nodes can decide: an expert is captured when they hold a majority of its replicas.

Legend: E = experts, N = nodes, R = replicas an expert, M = (R+1)/2 of them are a majority, lambda = the most experts
that any two nodes share, q = colluders. With R = 3 two colluders capture exactly what both hold.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations
from math import comb

import numpy as np

from strategies.placement.zones import Zones

EXACT_NODES = 100
"""Most nodes for which all groups of colluders are tried; with more nodes a bound is given."""

Groups = Sequence[Sequence[int]]
"""For every expert the numbers of its nodes."""


def pair_counts(groups: Iterable[Sequence[int]]) -> Counter[tuple[int, int]]:
    """Returns how many experts two nodes share, for every pair (lower, higher number) that shares one."""
    return Counter(pair for group in groups for pair in combinations(sorted(group), 2))


def pair_bound(num_experts: int, zones: Zones) -> int:
    """Returns a lower bound of lambda: no placement whose replicas keep to different zones has less.

    Without zones every node is one of its own: max(ceil(3E / C(N,2)), ceil(2 ceil(3E/N) / (N-1))). It can be reached
    except for a few numbers of experts where N = 2 (mod 3) (Hanani 1975).
    """
    nodes, replication, sizes = len(zones.of), zones.replication, zones.pair_classes
    pairs = comb(nodes, 2) - sum(comb(size, 2) for size in sizes)
    bound = _ceil(num_experts * comb(replication, 2), pairs)
    if zones.even:
        least, rest = divmod(replication * num_experts, nodes)
        bound = max(bound, _ceil((replication - 1) * least, nodes - max(sizes)))
        if rest:
            bound = max(bound, _ceil((replication - 1) * (least + 1), nodes - min(sizes)))
    # If two zones have a replica of every expert, they share every expert.
    for one, two in combinations(sorted(zones.sizes[zone] for zone in zones.full), 2):
        bound = max(bound, _ceil(num_experts, one * two))
    return bound


def capture_bound(colluders: int, pair_max: int, load_max: int, replication: int = 3) -> int:
    """Returns the most experts that `colluders` nodes can capture.

    It is min(lambda C(q,2) / C(M,2), q load / M), rounded down:
    each captured expert takes M of the colluders' seats and C(M,2) of the seats that pairs of them share.

    Args:
        colluders: q, the number of nodes that collude.
        pair_max: lambda, the most experts that two nodes share.
        load_max: The most experts that one node holds.
        replication: Replicas of an expert. M, the majority of them, captures it.
    """
    majority = (replication + 1) // 2
    return min(pair_max * comb(colluders, 2) // comb(majority, 2), colluders * load_max // majority)


def captured_exactly(groups: Groups, num_nodes: int, colluders: int, replication: int = 3) -> int:
    """Returns how many experts the worst `colluders` nodes capture. It tries all of them.

    For three colluders it takes N^3 values of 4 bytes.

    Args:
        groups: The nodes of each expert, by index.
        num_nodes: N.
        colluders: 2 or 3.
        replication: Replicas of an expert.

    Raises:
        ValueError: `colluders` is neither 2 nor 3.
    """
    if colluders not in (2, 3):
        raise ValueError(f"{colluders} colluders: exact for 2 and 3 only; take capture_bound")
    majority = (replication + 1) // 2
    if majority > colluders:
        return 0
    if majority == colluders:
        together = Counter(part for group in groups for part in combinations(sorted(group), colluders))
        return max(together.values(), default=0)
    shared_NN = np.zeros((num_nodes, num_nodes), np.int32)
    for (a, b), count in pair_counts(groups).items():
        shared_NN[a, b] = shared_NN[b, a] = count
    held_NNN = shared_NN[:, :, None] + shared_NN[:, None, :] + shared_NN[None, :, :]
    for trio, count in Counter(tuple(sorted(group)) for group in groups).items():
        # An expert that all three hold is counted by three pairs, and must count once.
        held_NNN[trio] -= 2 * count
    a_N = np.arange(num_nodes)
    ordered_NNN = (a_N[:, None, None] < a_N[None, :, None]) & (a_N[None, :, None] < a_N[None, None, :])
    return int(held_NNN[ordered_NNN].max(initial=0))


def _ceil(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)
