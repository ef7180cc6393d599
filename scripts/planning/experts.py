"""Who would hold which expert: loads, shared experts, what colluders capture, zones."""

from collections.abc import Iterator, Mapping
from time import perf_counter
from typing import Any

from strategies.placement.bounds import EXACT_NODES
from strategies.placement.notes import limits, notes
from strategies.placement.placement import Placement, check_replication, place
from trfmoe_core.blocks import expert_block
from trfmoe_core.errors import ConfigError, PlacementError

Zones = Mapping[str, str | None]


def node_names(count: int) -> list[str]:
    """Returns names of nodes that nobody has named."""
    return [f"node-{number:0{len(str(count))}d}" for number in range(1, count + 1)]


def dealt_zones(names: list[str], zones: int) -> dict[str, str | None]:
    """Returns the nodes dealt out over so many zones."""
    return {name: f"zone-{number % zones + 1}" for number, name in enumerate(names)}


def place_experts(layers: int, experts: int, zones: Zones, replication: int) -> dict[str, Any]:
    """Places the experts, and returns what is worth knowing of the placement.

    Args:
        layers: Layers of the model.
        experts: Experts a layer.
        zones: Node -> its zone, or None.
        replication: Nodes an expert.

    Raises:
        ConfigError: there are too few nodes, or a vote cannot have so many replicas.
    """
    blocks = [expert_block(layer, number) for layer in range(layers) for number in range(experts)]
    started = perf_counter()
    try:
        check_replication(replication, list(zones))
        placement = place(blocks, list(zones), zones=zones, replication=replication)
    except PlacementError as error:
        raise ConfigError(str(error)) from None
    return _facts(placement, layers) | {"ms": round(1000 * (perf_counter() - started), 1)}


def _facts(placement: Placement, layers: int) -> dict[str, Any]:
    loads = placement.loads().values()
    return {
        "nodes": len(placement.nodes),
        "layers": layers,
        "experts": sum(loads) // placement.replication,
        "replication": placement.replication,
        "load_min": min(loads),
        "load_max": max(loads),
        "layer_spread": placement.layer_spread(),
        "lambda": placement.pair_max(),
        "lambda_bound": placement.pair_bound(),
        "captured_2": placement.captured_by(2),
        "captured_3": placement.captured_by(3),
        "captured_exact": len(placement.nodes) <= EXACT_NODES,
        "zones": len(set(placement.zones.values())),
        "zone_violations": len(placement.zone_violations()),
        "captured_by_zone": placement.captured_by_zone(),
        "notes": notes(placement),
        "limits": limits(placement.replication, len(placement.nodes)),
    }


def placement_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Yields the facts of a placement for people."""
    layers = "1 layer" if found["layers"] == 1 else f"{found['layers']} layers"
    each = f"{found['replication']} nodes each"
    yield f"placement  {found['experts']} experts in {layers} on {found['nodes']} nodes, {each}"
    yield (
        f"load       {found['load_min']} to {found['load_max']} experts a node, "
        f"at most {found['layer_spread']} apart in a layer"
    )
    yield f"lambda     {found['lambda']}: the most experts that two nodes share (bound {found['lambda_bound']})"
    most = "" if found["captured_exact"] else "at most "
    yield (
        f"captured   {most}{found['captured_2']} of {found['experts']} experts by the worst 2 colluders, "
        f"{most}{found['captured_3']} by the worst 3"
    )
    if found["zones"]:
        yield (
            f"zones      {found['zones']}; {found['zone_violations']} experts have two replicas in one, "
            f"{found['captured_by_zone']} captured when the worst zone is lost"
        )
    for text in found["notes"]:
        yield f"note: {text}"
    yield "What a placement does not give:"
    for text in found["limits"]:
        yield f"- {text}"
