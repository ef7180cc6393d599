"""Which nodes hold which expert: three, or a larger odd number.

Two colluding nodes decide exactly the experts that both hold, so any two share as few as possible, all nodes hold
equally many, over the model and in every layer, and replicas keep to different zones. Nodes are known by name, so the
same federation gives the same placement everywhere. `notes.py` says in sentences what no placement gives.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from random import Random

from strategies.placement.bounds import EXACT_NODES, capture_bound, captured_exactly, pair_bound, pair_counts
from strategies.placement.initial import level_start, steiner_start
from strategies.placement.swap_search import Goal, SwapSearch
from strategies.placement.zones import Zones, quotas
from trfmoe_core.blocks import TRUNK
from trfmoe_core.config.model import replication_objection
from trfmoe_core.counts import counted
from trfmoe_core.errors import PlacementError

REPLICATION = 3

MOVES_BASE, MOVES_EXPERT, MOVES_MOST = 4_000, 200, 200_000
"""Budget of the swap search in tried moves: a constant, more for each expert, and a maximum (about 2 s)."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Holders of every block in one epoch.

    `holders` maps a block to its nodes' names, sorted; `zones` maps a node to its zone, where it has one.
    """

    epoch: int
    nodes: tuple[str, ...]
    holders: dict[str, tuple[str, ...]]
    zones: dict[str, str] = field(default_factory=dict)
    replication: int = REPLICATION

    @property
    def experts(self) -> dict[str, tuple[str, ...]]:
        """Holders of the experts, without the trunk, which all nodes hold."""
        return {block: names for block, names in self.holders.items() if block != TRUNK}

    def held_by(self, node: str) -> list[str]:
        """Returns the blocks that a node holds, the trunk included, in the model's order."""
        return list(self._held.get(node, ()))

    def loads(self) -> dict[str, int]:
        """Returns the number of experts of every node."""
        loads = dict.fromkeys(self.nodes, 0)
        for names in self.experts.values():
            for name in names:
                loads[name] += 1
        return loads

    def layer_spread(self) -> int:
        """Returns the largest difference between two nodes' numbers of experts in one layer."""
        counts: dict[str, Counter[str]] = {}
        for expert, names in self.experts.items():
            counts.setdefault(layer_of(expert), Counter(dict.fromkeys(self.nodes, 0))).update(names)
        return max((max(layer.values()) - min(layer.values()) for layer in counts.values()), default=0)

    def pair_max(self) -> int:
        """Returns lambda: the most experts that any two nodes share, which is what the worst pair can capture."""
        return max(pair_counts(self._groups).values(), default=0)

    def pair_bound(self) -> int:
        """Returns the lower bound of lambda for these nodes, zones and number of experts."""
        return pair_bound(len(self._groups), self.read_zones)

    def captured_by(self, colluders: int) -> int:
        """Returns how many experts the worst group of so many nodes can decide together.

        Exact for two and three up to 100 nodes, otherwise the bound min(lambda C(q,2), q load / 2).
        """
        if colluders in (2, 3) and len(self.nodes) <= EXACT_NODES:
            return captured_exactly(self._groups, len(self.nodes), colluders, self.replication)
        return capture_bound(colluders, self.pair_max(), max(self.loads().values()), self.replication)

    def captured_by_zone(self) -> int:
        """Returns how many experts lose their majority when the worst zone is lost."""
        lost: Counter[int] = Counter()
        for group in self._groups:
            seats = Counter(self.read_zones.of[node] for node in group)
            lost.update(zone for zone, count in seats.items() if 2 * count > self.replication)
        return max(lost.values(), default=0)

    def zone_violations(self) -> list[str]:
        """Returns the experts of which two replicas share a zone."""
        zone_of = self.zones.get
        return [
            expert
            for expert, names in self.experts.items()
            if any(zone_of(a) is not None and zone_of(a) == zone_of(b) for a, b in combinations(names, 2))
        ]

    @cached_property
    def read_zones(self) -> Zones:
        """The zones by number; a node without one is one of its own."""
        return Zones.read(self.nodes, self.zones, self.replication)

    @cached_property
    def _held(self) -> dict[str, list[str]]:
        held: dict[str, list[str]] = {}
        for block, names in self.holders.items():
            for name in names:
                held.setdefault(name, []).append(block)
        return held

    @cached_property
    def _groups(self) -> list[list[int]]:
        number = {name: index for index, name in enumerate(self.nodes)}
        return [[number[name] for name in names] for names in self.experts.values()]


def place(
    experts: Sequence[str],
    nodes: Sequence[str],
    epoch: int = 1,
    *,
    zones: Mapping[str, str | None] | None = None,
    replication: int = REPLICATION,
    trunk: bool = True,
) -> Placement:
    """Returns a placement of experts (block names, `layers.L.experts.E`) on nodes, the same for the same names.

    Loads differ by at most one, unless a zone has more than a third of the nodes; lambda is at its lower bound where
    the search reaches it. Cut from a Steiner triple system or dealt level by level, then mended by swaps.

    Args:
        experts: Block names in any order; `holders` keeps it.
        nodes: Names in any order.
        epoch: The placement's number.
        zones: Node to zone; a node without one counts as a zone of its own.
        replication: Replicas an expert: 3, or a larger odd number.
        trunk: Whether there is a trunk, which all nodes hold; False: none of it is trained.

    Raises:
        PlacementError: for an even replication or one below 3, or with fewer distinct nodes than that.
    """
    names = sorted(set(nodes))
    check_replication(replication, names)
    known = {name: zone for name in names if zones and (zone := zones.get(name)) is not None}
    read = Zones.read(names, known, replication)
    order = sorted(dict.fromkeys(experts), key=_natural)
    layers = [layer_of(expert) for expert in order]
    groups = _solve(layers, read)
    held = {expert: tuple(names[node] for node in sorted(group)) for expert, group in zip(order, groups, strict=True)}
    holders = {expert: held[expert] for expert in experts}
    if trunk:
        holders[TRUNK] = tuple(names)
    return Placement(epoch=epoch, nodes=tuple(names), holders=holders, zones=known, replication=replication)


def check_replication(replication: int, nodes: Sequence[str]) -> None:
    """Checks that every expert can have that many distinct holders, and a majority among them.

    Raises:
        PlacementError: otherwise.
    """
    if objection := replication_objection(replication):
        raise PlacementError(f"replication {objection}")
    if len(nodes) < replication:
        raise PlacementError(
            f"{counted(len(nodes), 'node')} ({', '.join(nodes)}), but every expert needs {replication} distinct "
            "ones; start more"
        )


def layer_of(expert: str) -> str:
    """Returns the layer's part of an expert's block name."""
    return expert.rsplit(".", 1)[0]


def _solve(layers: Sequence[str], zones: Zones) -> list[list[int]]:
    sizes = list(Counter(layers).values())
    share = quotas(len(layers), zones)
    bound = pair_bound(len(layers), zones)
    random = Random(0)
    groups = None
    if zones.replication == 3 and len(zones.names) == len(zones.of):
        groups = steiner_start(sizes, share, bound, random)
    if groups is None:
        groups = level_start(sizes, share, zones, random)
    numbers = [layer for layer, size in enumerate(sizes) for _ in range(size)]
    budget = min(MOVES_BASE + MOVES_EXPERT * len(layers), MOVES_MOST)
    search = SwapSearch(groups, numbers, zones, _goal(bound, sizes, share, zones), random)
    if not search.run(budget):
        reached = max(pair_counts(search.groups).values())
        if reached > bound:
            goal = _goal(reached, sizes, share, zones)
            search = SwapSearch(search.groups, search.layers, zones, goal, random)
            search.run(budget)
    by_layer = sorted(range(len(layers)), key=lambda number: search.layers[number])
    return [search.groups[number] for number in by_layer]


def _goal(pair_max: int, sizes: Sequence[int], share: Sequence[int], zones: Zones) -> Goal:
    total, nodes = sum(sizes), len(share)
    if zones.even:
        low = [[zones.replication * size // nodes] * nodes for size in sizes]
        high = [[-(-zones.replication * size // nodes)] * nodes for size in sizes]
    else:
        low = [[quota * size // total for quota in share] for size in sizes]
        high = [[-(-quota * size // total) for quota in share] for size in sizes]
    return Goal(pair_max, low, high)


def _natural(name: str) -> list[str | int]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
