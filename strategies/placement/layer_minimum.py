"""Makes sure that every node holds a minimum of experts in every layer. As few replicas as possible move.

With `experts.unheld: absent` a node has no experts but its own. It needs at least top-k of them in each layer, or its
router could not choose k.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from strategies.placement.placement import Placement, layer_of
from trfmoe_core.errors import PlacementError
from trfmoe_core.model.local_experts import REMEDY


def with_floor(placement: Placement, floor: int) -> Placement:
    """Returns the placement with at least `floor` experts of each layer on every node; unchanged if it has that.

    A node that lacks an expert takes it from the most loaded node that has more than the floor in this layer. If their
    loads would differ by more, it gives that node an expert of another layer in return. Zones are kept apart where
    that is possible.

    Raises:
        PlacementError: A layer has too few replicas for so many nodes.
    """
    _check_seats(placement, floor)
    table = _Table(placement)
    for layer in table.layers:
        for node in placement.nodes:
            while table.in_layer[node, layer] < floor:
                table.serve(node, layer, floor)
    return replace(placement, holders=table.holders) if table.changed else placement


def _check_seats(placement: Placement, floor: int) -> None:
    sizes = Counter(layer_of(expert) for expert in placement.experts)
    for layer, size in sizes.items():
        seats, needed = placement.replication * size, floor * len(placement.nodes)
        if seats < needed:
            raise PlacementError(
                f"{layer}: {size} experts with {placement.replication} replicas are {seats} seats, but {floor} on each "
                f"of {len(placement.nodes)} nodes are {needed} (experts.unheld: absent needs model.top_k experts a "
                f"layer on every node); {REMEDY}"
            )


class _Table:
    """The holders of every expert during the change."""

    def __init__(self, placement: Placement) -> None:
        self.holders = dict(placement.holders)
        self.zones = placement.zones
        self.experts = list(placement.experts)
        self.layers = list(dict.fromkeys(layer_of(expert) for expert in self.experts))
        self.loads = Counter(placement.loads())
        self.in_layer = Counter(
            (name, layer_of(expert)) for expert, names in placement.experts.items() for name in names
        )
        self.changed = False

    def serve(self, node: str, layer: str, floor: int) -> None:
        """Gives a node one more expert of a layer."""
        # Somebody has more than the floor: the seats suffice, and this node has less.
        _, _, expert, giver = min(
            (self._crowds(node, expert, giver), -self.loads[giver], expert, giver)
            for expert in self.experts
            if layer_of(expert) == layer and node not in self.holders[expert]
            for giver in self.holders[expert]
            if self.in_layer[giver, layer] > floor
        )
        self._move(expert, giver, node)
        if self.loads[node] > self.loads[giver] + 1:
            back = min(self._returns(node, giver, layer, floor), default=None)
            if back is not None:
                self._move(back[1], node, giver)

    def _returns(self, node: str, giver: str, layer: str, floor: int) -> Iterator[tuple[bool, str]]:
        """Returns the experts that the node can give in exchange."""
        for expert in self.experts:
            names, other = self.holders[expert], layer_of(expert)
            if other != layer and node in names and giver not in names and self.in_layer[node, other] > floor:
                yield self._crowds(giver, expert, node), expert

    def _crowds(self, node: str, expert: str, giver: str) -> bool:
        zone = self.zones.get(node)
        return zone is not None and any(self.zones.get(n) == zone for n in self.holders[expert] if n != giver)

    def _move(self, expert: str, giver: str, taker: str) -> None:
        layer = layer_of(expert)
        self.holders[expert] = tuple(sorted({*self.holders[expert], taker} - {giver}))
        for name, change in ((giver, -1), (taker, 1)):
            self.loads[name] += change
            self.in_layer[name, layer] += change
        self.changed = True
