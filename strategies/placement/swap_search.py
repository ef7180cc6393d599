"""Swap search: lowers how many experts two nodes share and evens out every layer, with all loads kept.

Two moves keep every node's load: two groups exchange a node each, or two groups exchange their layers. A move that
would break the zone rule is never made. The budget is a number of tried moves, never seconds, and chance comes from
`random()` of a seeded generator alone, so the result is the same on every machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from random import Random

from strategies.placement.zones import Zones

CHANCE_WORSE = 0.005
"""Share of moves kept although they cost one more, to leave dead ends. From 0.02 on, large designs get lost."""


@dataclass(frozen=True)
class Goal:
    """The goal of the search: no pair above `pair_max`, every node within its bounds in every layer.

    `low` and `high` are indexed by layer and node.
    """

    pair_max: int
    low: Sequence[Sequence[int]]
    high: Sequence[Sequence[int]]


class SwapSearch:
    """The search's state: groups with their layers, their violations, and the moves."""

    def __init__(
        self, groups: Sequence[Sequence[int]], layers: Sequence[int], zones: Zones, goal: Goal, random: Random
    ) -> None:
        self.groups = [list(group) for group in groups]
        self.layers = list(layers)
        self.zones = zones
        self.goal = goal
        self.random = random.random
        self.num_nodes = len(zones.of)
        self.of_node: list[list[int]] = [[] for _ in range(self.num_nodes)]
        self.in_layer = [[0] * self.num_nodes for _ in goal.low]
        self.shared: dict[int, int] = {}
        self.crowded = _Bag()
        self.uneven = _Bag()
        for number, group in enumerate(self.groups):
            for place, node in enumerate(group):
                self.of_node[node].append(number)
                self.in_layer[self.layers[number]][node] += 1
                for other in group[:place]:
                    key = self._key(node, other)
                    self.shared[key] = self.shared.get(key, 0) + 1
        self.pair_cost = 0
        self.layer_cost = 0
        for key, count in self.shared.items():
            self.crowded.keep(key, count > goal.pair_max)
            self.pair_cost += max(0, count - goal.pair_max) ** 2
        for layer in range(len(goal.low)):
            for node in range(self.num_nodes):
                self.layer_cost += self._check_layer(layer, node)
        self._rigid = False
        self._best = self._costs
        self._kept: tuple[list[list[int]], list[int]] | None = None

    def run(self, budget: int) -> bool:
        """Tries at most `budget` moves, keeps the best groups seen (pairs before layers); True: the goal is met.

        Where every pair of nodes shares exactly the goal's number of experts, only layers are exchanged: such a
        design does not come back once it is broken.
        """
        full = len(self.groups) * comb(self.zones.replication, 2) == self.goal.pair_max * comb(self.num_nodes, 2)
        self._rigid = full and not self.pair_cost
        for _ in range(budget):
            if self._costs < self._best:
                self._best, self._kept = self._costs, None
            if self._costs == (0, 0):
                return True
            pick = int(self.random() * (len(self.crowded.items) + len(self.uneven.items)))
            if pick < len(self.crowded.items):
                self._part(self.crowded.items[pick])
            else:
                self._even(self.uneven.items[pick - len(self.crowded.items)])
        if self._costs > self._best and self._kept is not None:
            self.groups, self.layers = self._kept
        return min(self._costs, self._best) == (0, 0)

    @property
    def _costs(self) -> tuple[int, int]:
        return self.pair_cost, self.layer_cost

    def _part(self, pair: int) -> None:
        a, b = divmod(pair, self.num_nodes)
        group = self._any([number for number in self.of_node[a] if b in self.groups[number]])
        self._try_exchange(group, a if self.random() < 0.5 else b, int(self.random() * len(self.groups)))

    def _even(self, spot: int) -> None:
        layer, node = divmod(spot, self.num_nodes)
        held = self.of_node[node]
        if self.in_layer[layer][node] > self.goal.high[layer][node]:
            group = self._any([number for number in held if self.layers[number] == layer])
        else:
            group = self._any([number for number in held if self.layers[number] != layer])
        other = int(self.random() * len(self.groups))
        if self._rigid or self.random() < 0.5:
            self._try_relabel(group, other)
        else:
            self._try_exchange(group, node, other)

    def _any(self, numbers: list[int]) -> int:
        return numbers[int(self.random() * len(numbers))]

    def _accept(self, pair_change: int, layer_change: int) -> bool:
        change = pair_change + layer_change
        if change > 1 or (change == 1 and self.random() >= CHANCE_WORSE):
            return False
        if (pair_change, layer_change) > (0, 0) and self._kept is None and self._costs <= self._best:
            # The next move leaves the best groups so far, so they are copied.
            self._best, self._kept = self._costs, ([list(group) for group in self.groups], list(self.layers))
        self.pair_cost += pair_change
        self.layer_cost += layer_change
        return True

    def _try_exchange(self, first: int, x: int, second: int) -> None:
        """Lets group `first` give node x to group `second` for a node of it, if that is allowed and good enough."""
        two = self.groups[second]
        y = two[int(self.random() * len(two))]
        one = self.groups[first]
        if x in two or y in one or not (self._fits(one, x, y) and self._fits(two, y, x)):
            return
        rest_one = [node for node in one if node != x and node not in two]
        rest_two = [node for node in two if node != y and node not in one]
        less = [self._key(x, o) for o in rest_one] + [self._key(y, o) for o in rest_two]
        more = [self._key(y, o) for o in rest_one] + [self._key(x, o) for o in rest_two]
        get, limit = self.shared.get, self.goal.pair_max
        change = 0
        for key in less:
            over = self.shared[key] - limit
            if over > 0:
                change -= 2 * over - 1
        for key in more:
            over = get(key, 0) - limit
            if over >= 0:
                change += 2 * over + 1
        p, q = self.layers[first], self.layers[second]
        if not self._accept(change, self._shift(p, q, x) + self._shift(q, p, y) if p != q else 0):
            return
        for key in less:
            self.shared[key] -= 1
            self.crowded.keep(key, self.shared[key] > limit)
        for key in more:
            self.shared[key] = get(key, 0) + 1
            self.crowded.keep(key, self.shared[key] > limit)
        one[one.index(x)], two[two.index(y)] = y, x
        self.of_node[x].remove(first)
        self.of_node[x].append(second)
        self.of_node[y].remove(second)
        self.of_node[y].append(first)
        if p != q:
            self._move(p, q, x)
            self._move(q, p, y)

    def _try_relabel(self, first: int, second: int) -> None:
        """Exchanges the layers of two groups if that is good enough."""
        p, q = self.layers[first], self.layers[second]
        if p == q:
            return
        one, two = self.groups[first], self.groups[second]
        leave = [node for node in one if node not in two]
        enter = [node for node in two if node not in one]
        change = sum(self._shift(p, q, node) for node in leave) + sum(self._shift(q, p, node) for node in enter)
        if not self._accept(0, change):
            return
        self.layers[first], self.layers[second] = q, p
        for node in leave:
            self._move(p, q, node)
        for node in enter:
            self._move(q, p, node)

    def _fits(self, group: list[int], out: int, new: int) -> bool:
        """Returns True if the group keeps to the zone rule with `new` in the place of `out`."""
        zone_of = self.zones.of
        zone = zone_of[new]
        if zone == zone_of[out]:
            return True
        return sum(zone_of[node] == zone for node in group) < self.zones.limit

    def _shift(self, source: int, target: int, node: int) -> int:
        """Returns by how much the cost grows when the node has one expert less in one layer and one more in another."""
        low, high, count = self.goal.low, self.goal.high, self.in_layer
        return (
            _distance(count[source][node] - 1, low[source][node], high[source][node])
            - _distance(count[source][node], low[source][node], high[source][node])
            + _distance(count[target][node] + 1, low[target][node], high[target][node])
            - _distance(count[target][node], low[target][node], high[target][node])
        )

    def _move(self, source: int, target: int, node: int) -> None:
        self.in_layer[source][node] -= 1
        self.in_layer[target][node] += 1
        self._check_layer(source, node)
        self._check_layer(target, node)

    def _check_layer(self, layer: int, node: int) -> int:
        cost = _distance(self.in_layer[layer][node], self.goal.low[layer][node], self.goal.high[layer][node])
        self.uneven.keep(layer * self.num_nodes + node, cost > 0)
        return cost

    def _key(self, a: int, b: int) -> int:
        return a * self.num_nodes + b if a < b else b * self.num_nodes + a


class _Bag:
    """A set of numbers from which one can be drawn by position, in an order that depends on the changes alone."""

    def __init__(self) -> None:
        self.items: list[int] = []
        self._where: dict[int, int] = {}

    def keep(self, item: int, inside: bool) -> None:
        """Puts the item in or takes it out."""
        where = self._where.get(item)
        if inside and where is None:
            self._where[item] = len(self.items)
            self.items.append(item)
        elif not inside and where is not None:
            last = self.items.pop()
            if last != item:
                self.items[where] = last
                self._where[last] = where
            del self._where[item]


def _distance(count: int, low: int, high: int) -> int:
    return (count - high) ** 2 if count > high else (low - count) ** 2 if count < low else 0
