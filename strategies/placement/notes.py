"""The limits of a placement in sentences, for `trfmoe plan`."""

from strategies.placement.placement import Placement
from trfmoe_core.counts import counted


def limits(replication: int, nodes: int) -> list[str]:
    """Returns what no placement gives to so many nodes."""
    majority = replication // 2 + 1
    found = [f"{majority} nodes that collude decide every expert that they share; more nodes make these fewer"]
    if nodes == replication:
        found = [f"with {replication} nodes any {majority} own everything: {majority} that collude decide every expert"]
    elif nodes <= 2 * replication:
        found.append(
            f"below {2 * replication + 1} nodes isolation between experts is weak: {majority} colluders hold many"
        )
    return [
        *found,
        "the mean loss under random faults is the same for every placement; this one lowers the worst case",
    ]


def notes(placement: Placement) -> list[str]:
    """Returns what falls short of the rules in this placement, if anything: zones, loads, shared experts, layers."""
    zones, loads = placement.read_zones, placement.loads().values()
    total, replication = len(placement.nodes), placement.replication
    found = []
    if violations := len(placement.zone_violations()):
        why = (
            ""
            if zones.separable
            else f", because there are only {counted(len(zones.names), 'zone')} for {replication} replicas"
        )
        found.append(f"{violations} experts have two replicas in one zone{why}; add nodes in another zone")
    if not zones.even:
        size, name = max((size, name) for size, name in zip(zones.sizes, zones.names, strict=True))
        found.append(
            f"zone {name} has {size} of {counted(total, 'node')}, more than one in {replication}: with zones "
            "kept apart, loads go "
            f"from {min(loads)} to {max(loads)}; add nodes in other zones"
        )
    elif max(loads) - min(loads) > 1:
        found.append(f"loads go from {min(loads)} to {max(loads)}")
    elif placement.layer_spread() > 1:
        found.append(f"in one layer the nodes' numbers of experts differ by up to {placement.layer_spread()}")
    unzoned = sum(1 for node in placement.nodes if node not in placement.zones)
    if zones.stated and unzoned:
        found.append(f"{unzoned} nodes say no zone; each counts as a zone of its own")
    if (shared := placement.pair_max()) > (bound := placement.pair_bound()):
        found.append(f"two nodes share {shared} experts; the lower bound is {bound}")
    return found
