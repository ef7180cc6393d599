"""Gives the replicas of one node to the other nodes. No other replica moves.

A greedy pass gives each replica to a node of another zone with the least load that shares the fewest experts with the
other holders. Then the moved replicas alone are rearranged: along paths of nodes until loads are even, and by swaps
until nodes share fewer experts and layers are even.
"""

from collections import Counter, deque
from collections.abc import Iterable
from itertools import combinations

from strategies.placement.bounds import pair_bound
from strategies.placement.placement import Placement, layer_of
from strategies.placement.zones import Zones
from trfmoe_core.blocks import TRUNK

SWAP_PASSES = 4
"""Passes over all pairs of moved replicas; two are usually enough."""


class Dealing:
    """The replicas of `giver`: which node takes each of them, and what the other nodes hold."""

    def __init__(self, placement: Placement, giver: str) -> None:
        self.placement = placement
        self.zones = placement.zones
        self.takers = [name for name in placement.nodes if name != giver]
        self.giver = giver
        takers = Zones.read(self.takers, self.zones, placement.replication)
        self.bound = pair_bound(len(placement.experts), takers)
        loads = placement.loads()
        self.loads = {name: loads[name] for name in self.takers}
        self.rest: dict[str, list[str]] = {}
        self.taker: dict[str, str] = {}
        self.shared: dict[str, Counter[str]] = {name: Counter() for name in self.takers}
        self.layer: Counter[tuple[str, str]] = Counter()
        for block, names in placement.experts.items():
            rest = [name for name in names if name != giver]
            for name in rest:
                self.layer[name, layer_of(block)] += 1
                self.shared[name].update(other for other in rest if other != name)

    def deal(self, blocks: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """Returns the new holders of the given blocks, the trunk left out."""
        for block in blocks:
            if block != TRUNK:
                self.rest[block] = [name for name in self.placement.holders[block] if name != self.giver]
                self._give(block, min(self._able(block), key=lambda name: self._key(block, name)))
        while self._level():
            pass
        self._swap()
        return {block: tuple(sorted((*rest, self.taker[block]))) for block, rest in self.rest.items()}

    def _able(self, block: str) -> list[str]:
        return [name for name in self.takers if name not in self.rest[block]]

    def _level(self) -> bool:
        """Moves load from a most loaded node to one with two replicas less. Returns False if that is impossible.

        The replicas move along a path of nodes: each node on the path gives one to the next.
        """
        most = max(self.loads.values())
        came: dict[str, tuple[str, str]] = {}
        queue = deque(name for name in self.takers if self.loads[name] == most)
        seen = set(queue)
        while queue:
            giver = queue.popleft()
            if self.loads[giver] <= most - 2:
                while giver in came:
                    before, block = came[giver]
                    self._take(block)
                    self._give(block, giver)
                    giver = before
                return True
            for block in [block for block, taker in self.taker.items() if taker == giver]:
                for name in self._able(block):
                    if name not in seen and self._crowds(block, name) <= self._crowds(block, giver):
                        seen.add(name)
                        came[name] = (giver, block)
                        queue.append(name)
        return False

    def _swap(self) -> None:
        """Swaps moved replicas while that lowers the number of shared experts above the bound, or evens out layers."""
        for _ in range(SWAP_PASSES):
            better = False
            for one, two in combinations(self.taker, 2):
                a, b = self.taker[one], self.taker[two]
                if a == b or a in self.rest[two] or b in self.rest[one]:
                    continue
                if self._crowds(one, b) + self._crowds(two, a) > self._crowds(one, a) + self._crowds(two, b):
                    continue
                before = self._cost(one, two, a, b)
                self._trade(one, two)
                if self._cost(one, two, a, b) < before:
                    better = True
                else:
                    self._trade(one, two)
            if not better:
                return

    def _trade(self, one: str, two: str) -> None:
        a, b = self._take(one), self._take(two)
        self._give(one, b)
        self._give(two, a)

    def _cost(self, one: str, two: str, a: str, b: str) -> tuple[int, int]:
        pairs = {frozenset((name, other)) for name in (a, b) for block in (one, two) for other in self.rest[block]}
        over = [max(0, self.shared[x][y] - self.bound) for x, y in (sorted(pair) for pair in pairs if len(pair) == 2)]
        layers = {layer_of(one), layer_of(two)}
        return sum(count**2 for count in over), sum(self.layer[name, layer] ** 2 for name in (a, b) for layer in layers)

    def _key(self, block: str, name: str) -> tuple[bool, int, int, int, int]:
        counts = [self.shared[name][other] for other in self.rest[block]]
        return (
            self._crowds(block, name),
            self.loads[name],
            max(counts),
            sum(counts),
            self.layer[name, layer_of(block)],
        )

    def _crowds(self, block: str, name: str) -> bool:
        zone = self.zones.get(name)
        return zone is not None and any(self.zones.get(other) == zone for other in self.rest[block])

    def _give(self, block: str, name: str) -> None:
        self.taker[block] = name
        self._count(block, name, 1)

    def _take(self, block: str) -> str:
        name = self.taker.pop(block)
        self._count(block, name, -1)
        return name

    def _count(self, block: str, name: str, step: int) -> None:
        self.loads[name] += step
        self.layer[name, layer_of(block)] += step
        for other in self.rest[block]:
            self.shared[name][other] += step
            self.shared[other][name] += step
