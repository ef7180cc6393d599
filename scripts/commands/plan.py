"""`trfmoe plan`: who would hold which expert, and what colluding nodes could decide."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scripts.terminal.options import JsonOption
from trfmoe_core.counts import counted

if TYPE_CHECKING:
    from scripts.terminal.output import Output

ConfigArgument = Annotated[Path | None, typer.Argument(help="Recipe; without one say --nodes and --experts.")]
NodesOption = Annotated[int | None, typer.Option(min=3, max=100_000, help="Number of nodes instead of the recipe's.")]
LayersOption = Annotated[int | None, typer.Option(min=1, max=256, help="Layers; 1 without a recipe.")]
ExpertsOption = Annotated[int | None, typer.Option(min=1, max=4096, help="Experts a layer.")]
ReplicationOption = Annotated[int | None, typer.Option(help="Nodes an expert: 3, or a larger odd number.")]
ZonesOption = Annotated[int | None, typer.Option(min=1, help="Deal the nodes over so many zones.")]


def plan(
    config: ConfigArgument = None,
    nodes: NodesOption = None,
    layers: LayersOption = None,
    experts: ExpertsOption = None,
    replication: ReplicationOption = None,
    zones: ZonesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show who would hold which expert: loads, shared experts, what colluders capture, zones."""
    from time import perf_counter

    from scripts.terminal.output import Output
    from strategies.placement.bounds import EXACT_NODES
    from strategies.placement.notes import limits, notes
    from strategies.placement.placement import place

    asked = _plan_input(config, nodes, layers, experts, replication, zones)
    blocks = [f"layers.{layer}.experts.{number}" for layer in range(asked.layers) for number in range(asked.experts)]
    started = perf_counter()
    placement = place(blocks, list(asked.zone_of), zones=asked.zone_of, replication=asked.replication)
    milliseconds = 1000 * (perf_counter() - started)
    loads = placement.loads().values()
    result = {
        "nodes": len(placement.nodes),
        "layers": asked.layers,
        "experts": len(blocks),
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
        "limits": limits(placement.replication),
        "ms": round(milliseconds, 1),
        "training": asked.training,
    }
    output = Output(as_json)
    _show(result, output)
    output.result({"outcome": "completed", **result, "exit_code": 0})


@dataclass(frozen=True, kw_only=True)
class _PlanInput:
    zone_of: dict[str, str | None]
    layers: int
    experts: int
    replication: int
    training: dict[str, Any] | None
    """With what the recipe would train on this machine; None without a recipe, or if it cannot."""


def _plan_input(
    config: Path | None,
    nodes: int | None,
    layers: int | None,
    experts: int | None,
    replication: int | None,
    zones: int | None,
) -> _PlanInput:
    from strategies.placement.placement import REPLICATION, check_replication
    from trfmoe_core.errors import ConfigError, PlacementError

    zone_of: dict[str, str | None] = dict.fromkeys(_names(nodes or 0))
    training = None
    if config is not None:
        from scripts.run.computing import computing
        from scripts.run.preflight import find_recipe
        from trfmoe_core.config import load_recipe

        recipe = load_recipe(find_recipe(config))
        with suppress(ConfigError):  # the operator's machine need not have the nodes' device
            training = computing(recipe)
        layers, experts = layers or recipe.model.layers, experts or recipe.model.experts
        replication = recipe.experts.replication if replication is None else replication
        if nodes is None:
            zone_of = {node.name: node.zone for node in recipe.nodes} or dict.fromkeys(_names(recipe.num_nodes))
    if not zone_of or experts is None:
        raise ConfigError(
            "nothing to plan; give a recipe, such as configs/demo.yaml, or --nodes and --experts, "
            "such as --nodes 31 --experts 155"
        )
    if zones is not None:
        zone_of = {name: f"zone-{number % zones + 1}" for number, name in enumerate(zone_of)}
    replication = REPLICATION if replication is None else replication
    try:
        check_replication(replication, list(zone_of))
    except PlacementError as error:
        raise ConfigError(str(error)) from None
    return _PlanInput(zone_of=zone_of, layers=layers or 1, experts=experts, replication=replication, training=training)


def _names(count: int) -> list[str]:
    return [f"node-{number:0{len(str(count))}d}" for number in range(1, count + 1)]


def _show(result: dict[str, Any], output: "Output") -> None:
    from scripts.run.computing import computing_line

    layers = counted(result["layers"], "layer")
    output.line(f"{result['nodes']} nodes, {result['experts']} experts in {layers}, {result['replication']} nodes each")
    output.line(
        f"load       {result['load_min']} to {result['load_max']} experts a node, "
        f"at most {result['layer_spread']} apart in a layer"
    )
    output.line(
        f"lambda     {result['lambda']}: the most experts that two nodes share (bound {result['lambda_bound']})"
    )
    most = "" if result["captured_exact"] else "at most "
    output.line(
        f"captured   {most}{result['captured_2']} of {result['experts']} experts by the worst 2 colluders, "
        f"{most}{result['captured_3']} by the worst 3"
    )
    if result["zones"]:
        output.line(
            f"zones      {result['zones']}; {result['zone_violations']} experts have two replicas in one, "
            f"{result['captured_by_zone']} captured when the worst zone is lost"
        )
    if result["training"]:
        output.line(computing_line(result["training"]))
    output.line(f"time       {result['ms']} ms")
    for text in result["notes"]:
        output.line(f"note: {text}")
    output.line("What a placement does not give:")
    for text in result["limits"]:
        output.line(f"- {text}")
