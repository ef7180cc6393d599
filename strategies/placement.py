"""Which three nodes hold which expert.

Loads differ by at most one over the model and over each layer as far as the numbers allow, and two nodes share as few
experts as the greedy rule finds: two colluding nodes decide exactly the experts that both hold. With three nodes any
two own everything; the mean loss under random faults is the same for every placement. Nodes are known by name, so
the same federation gives the same placement everywhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from trfmoe_core.blocks import TRUNK
from trfmoe_core.errors import PlacementError

REPLICATION = 3


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Holders of every block in one epoch. `holders` maps a block to its nodes' names, sorted."""

    epoch: int
    nodes: tuple[str, ...]
    holders: dict[str, tuple[str, ...]]

    def held_by(self, node: str) -> list[str]:
        """Returns the blocks that a node holds, the trunk included, in the model's order."""
        return [block for block, names in self.holders.items() if node in names]

    def loads(self) -> dict[str, int]:
        """Returns the number of experts of every node."""
        loads = dict.fromkeys(self.nodes, 0)
        for block, names in self.holders.items():
            if block != TRUNK:
                for name in names:
                    loads[name] += 1
        return loads

    def pair_max(self) -> int:
        """Returns lambda: the most experts that any two nodes share, which is what the worst pair can capture."""
        shared: dict[tuple[str, str], int] = {}
        for block, names in self.holders.items():
            if block != TRUNK:
                for pair in combinations(names, 2):
                    shared[pair] = shared.get(pair, 0) + 1
        return max(shared.values(), default=0)


def place(experts: Sequence[str], nodes: Sequence[str], epoch: int = 1) -> Placement:
    """Returns a placement of experts (block names, `layers.L.experts.E`) on nodes, the same for the same names.

    Every expert in turn takes three of the least loaded nodes; among those the ones that share least so far, then
    those with the fewest experts of the same layer.

    Raises:
        PlacementError: with fewer than three distinct nodes.
    """
    names = sorted(set(nodes))
    if len(names) < REPLICATION:
        raise PlacementError(
            f"{len(names)} nodes ({', '.join(names)}), but every expert needs {REPLICATION} distinct ones; start more"
        )
    load = dict.fromkeys(names, 0)
    shared: dict[frozenset[str], int] = {}
    in_layer: dict[tuple[str, str], int] = {}
    holders: dict[str, tuple[str, ...]] = {}
    for number, expert in enumerate(experts):
        layer = expert.rsplit(".", 1)[0]
        order = names[number % len(names) :] + names[: number % len(names)]
        chosen: list[str] = []
        for _ in range(REPLICATION):
            best = min(
                (name for name in order if name not in chosen),
                key=lambda name: (
                    load[name],
                    max((shared.get(frozenset((name, other)), 0) for other in chosen), default=0),
                    sum(shared.get(frozenset((name, other)), 0) for other in chosen),
                    in_layer.get((layer, name), 0),
                ),
            )
            chosen.append(best)
        for name in chosen:
            load[name] += 1
            in_layer[layer, name] = in_layer.get((layer, name), 0) + 1
        for pair in combinations(chosen, 2):
            shared[frozenset(pair)] = shared.get(frozenset(pair), 0) + 1
        holders[expert] = tuple(sorted(chosen))
    holders[TRUNK] = tuple(names)
    return Placement(epoch=epoch, nodes=tuple(names), holders=holders)
