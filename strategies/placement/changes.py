"""Changes of a placement when nodes join, leave or lose experts. As few replicas as possible move.

A moved replica loses its optimizer state. So when a node leaves, only its own replicas move; when a node joins,
floor(R E / N) replicas move, the fewest that keep loads within one of each other. With each change the number of shared
experts grows a little: usually to one above the bound, at most to two in all trials.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from strategies.placement.placement import Placement, check_replication, layer_of
from strategies.placement.redistribution import Dealing
from trfmoe_core.blocks import TRUNK
from trfmoe_core.counts import counted
from trfmoe_core.errors import PlacementError


def leave(placement: Placement, node: str) -> Placement:
    """Returns the next epoch's placement without the node; exactly its replicas have a new holder.

    Raises:
        PlacementError: when the node is unknown, or too few would remain to hold every expert.
    """
    _check_known(placement, node)
    rest = tuple(name for name in placement.nodes if name != node)
    try:
        check_replication(placement.replication, rest)
    except PlacementError as error:
        raise PlacementError(f"{node} cannot leave: {error}") from None
    moved = Dealing(placement, node).deal(placement.held_by(node))
    holders = {block: moved.get(block, names) for block, names in placement.holders.items()}
    if TRUNK in holders:
        holders[TRUNK] = rest
    zones = {name: zone for name, zone in placement.zones.items() if name != node}
    return replace(placement, epoch=placement.epoch + 1, nodes=rest, holders=holders, zones=zones)


def rehome(placement: Placement, node: str, experts: Iterable[str] | None = None) -> Placement:
    """Returns the next epoch's placement in which others hold the node's replicas of `experts` (default: all).

    The node stays, keeps the trunk and counts as any other when experts are dealt next; to sit out for a while it
    leaves and joins again.

    Raises:
        PlacementError: when the node is unknown, does not hold an expert, or is needed because all others hold it.
    """
    _check_known(placement, node)
    held = [block for block in placement.held_by(node) if block != TRUNK]
    wanted = held if experts is None else list(dict.fromkeys(experts))
    if strange := [expert for expert in wanted if expert not in held]:
        raise PlacementError(f"{node} does not hold {', '.join(strange)} in epoch {placement.epoch}")
    if wanted and len(placement.nodes) == placement.replication:
        raise PlacementError(
            f"{node} keeps its experts: with {counted(len(placement.nodes), 'node')} nobody else can take them"
        )
    moved = Dealing(placement, node).deal(wanted)
    holders = {block: moved.get(block, names) for block, names in placement.holders.items()}
    return replace(placement, epoch=placement.epoch + 1, holders=holders)


def join(placement: Placement, node: str, zone: str | None = None) -> Placement:
    """Returns the next epoch's placement with the node, which takes floor(R E / N) replicas from the most loaded.

    It takes fewer where its zone has a replica of everything that it could take.

    Raises:
        PlacementError: when a node of that name is there already.
    """
    if node in placement.nodes:
        raise PlacementError(f"{node} takes part already in epoch {placement.epoch}; give every node a name of its own")
    nodes = tuple(sorted((*placement.nodes, node)))
    zones = {**placement.zones, **({} if zone is None else {node: zone})}
    holders = dict(placement.holders)
    loads, shared = placement.loads(), Counter[str]()
    layer: Counter[tuple[str, str]] = Counter(
        (name, layer_of(block)) for block, names in placement.experts.items() for name in names
    )
    for _ in range(placement.replication * len(placement.experts) // len(nodes)):
        seat = _best_seat(holders, loads, shared, layer, zones, node)
        if seat is None:
            break
        block, giver = seat
        others = [name for name in holders[block] if name != giver]
        shared.update(others)
        layer[node, layer_of(block)] += 1
        layer[giver, layer_of(block)] -= 1
        loads[giver] -= 1
        holders[block] = tuple(sorted((*others, node)))
    if TRUNK in holders:
        holders[TRUNK] = nodes
    return replace(placement, epoch=placement.epoch + 1, nodes=nodes, holders=holders, zones=zones)


def moved(before: Placement, after: Placement) -> dict[str, list[str]]:
    """Returns for every node the experts that it holds after and did not hold before."""
    gained: dict[str, list[str]] = {}
    for block, names in after.experts.items():
        for name in names:
            if name not in before.holders[block]:
                gained.setdefault(name, []).append(block)
    return gained


def _best_seat(
    holders: Mapping[str, Sequence[str]],
    loads: Mapping[str, int],
    shared: Counter[str],
    layer: Counter[tuple[str, str]],
    zones: Mapping[str, str],
    node: str,
) -> tuple[str, str] | None:
    """The expert and the holder of it whose seat the joiner takes: most loaded holder, then fewest shared experts."""
    best: tuple[tuple[int, int, int, int], str, str] | None = None
    zone = zones.get(node)
    for block, names in holders.items():
        if block == TRUNK or node in names:
            continue
        for giver in names:
            if best is not None and -loads[giver] > best[0][0]:
                continue
            others = [name for name in names if name != giver]
            if zone is not None and any(zones.get(name) == zone for name in others):
                continue
            counts = [shared[name] for name in others]
            number = layer_of(block)
            key = (-loads[giver], max(counts), sum(counts), layer[node, number] - layer[giver, number])
            if best is None or key < best[0]:
                best = (key, block, giver)
    return best and best[1:]


def _check_known(placement: Placement, node: str) -> None:
    if node not in placement.nodes:
        raise PlacementError(f"{node!r} takes no part in epoch {placement.epoch}")
