"""Zones: nodes that fail or collude together (one operator, one site), and how many experts each node should hold.

With as many zones as replicas, no two replicas of an expert share a zone. That and even loads go together exactly if
no zone holds more than 1/R of the nodes; otherwise separation comes first and loads give way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True, kw_only=True)
class Zones:
    """Which zone every node is in, by number. A node without a zone is one of its own."""

    of: tuple[int, ...]
    names: tuple[str, ...]
    replication: int
    stated: bool
    """Whether any node says its zone."""

    @classmethod
    def read(cls, nodes: Sequence[str], zones: Mapping[str, str | None], replication: int) -> "Zones":
        """Returns the zones of the nodes, numbered in the order of the nodes."""
        numbers: dict[tuple[bool, str], int] = {}
        of = []
        for node in nodes:
            zone = zones.get(node)
            of.append(numbers.setdefault((zone is not None, node if zone is None else zone), len(numbers)))
        stated = any(is_zone for is_zone, _ in numbers)
        return cls(of=tuple(of), names=tuple(name for _, name in numbers), replication=replication, stated=stated)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Nodes of every zone."""
        sizes = [0] * len(self.names)
        for zone in self.of:
            sizes[zone] += 1
        return tuple(sizes)

    @property
    def separable(self) -> bool:
        """True if all replicas of an expert can be in different zones."""
        return len(self.names) >= self.replication

    @property
    def limit(self) -> int:
        """The most replicas of one expert that a zone need hold: 1, or more where zones are too few."""
        return -(-self.replication // len(self.names))

    @property
    def even(self) -> bool:
        """True if loads within one of each other are possible together with separation."""
        return not self.separable or max(self.sizes) * self.replication <= len(self.of)

    @property
    def pair_classes(self) -> tuple[int, ...]:
        """Sizes of the classes inside which no pair of nodes shares an expert: for the bound of lambda."""
        return self.sizes if self.separable else (1,) * len(self.of)

    @cached_property
    def full(self) -> frozenset[int]:
        """Zones that must have a replica of every expert, because the other zones are too few for the rest.

        A zone has at most one replica of each; what it cannot take, the others must.
        """
        full: set[int] = set()
        while self.separable and len(full) < len(self.sizes):
            seats, nodes = self.replication - len(full), sum(s for z, s in enumerate(self.sizes) if z not in full)
            crowded = {zone for zone, size in enumerate(self.sizes) if zone not in full and size * seats >= nodes}
            if not crowded:
                break
            full |= crowded
        return frozenset(full)


def quotas(num_experts: int, zones: Zones) -> list[int]:
    """Returns how many experts every node should hold: as even as the zones allow, R experts' worth in all."""
    full = zones.full
    nodes = sum(size for zone, size in enumerate(zones.sizes) if zone not in full)
    base, extra = divmod((zones.replication - len(full)) * num_experts, nodes) if nodes else (0, 0)
    left = [num_experts if zone in full else num_experts - base * size for zone, size in enumerate(zones.sizes)]
    seats = list(zones.sizes)
    result = []
    for zone in zones.of:
        if zone in full:
            share = -(-left[zone] // seats[zone])
            seats[zone] -= 1
        else:
            more = extra > 0 and (left[zone] > 0 or not zones.separable)
            extra -= more
            share = base + more
        left[zone] -= share if zone in full else share - base
        result.append(share)
    return result
