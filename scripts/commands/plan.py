"""`trfmoe plan`: what a run will cost, who would hold which expert, and what colluding nodes could decide."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scripts.terminal.options import JsonOption, SetOption

if TYPE_CHECKING:
    import torch

    from scripts.planning.federation import PlannedRun
    from trfmoe_core.config import Recipe

ConfigArgument = Annotated[Path | None, typer.Argument(help="Recipe; without one say --nodes and --experts.")]
NodesOption = Annotated[int | None, typer.Option(min=3, max=100_000, help="Number of nodes instead of the recipe's.")]
LayersOption = Annotated[int | None, typer.Option(min=1, max=256, help="Layers; 1 without a recipe.")]
ExpertsOption = Annotated[int | None, typer.Option(min=1, max=4096, help="Experts a layer.")]
ReplicationOption = Annotated[int | None, typer.Option(help="Nodes an expert: 3, or a larger odd number.")]
ZonesOption = Annotated[int | None, typer.Option(min=1, help="Deal the nodes over so many zones.")]
BandwidthOption = Annotated[
    float | None,
    typer.Option(min=1e-3, metavar="MBIT", help="Mbit/s of each node's link and of the coordinator's."),
]
MeasureOption = Annotated[bool, typer.Option("--measure", help="Train a few steps here to learn the token rate.")]
RateOption = Annotated[
    float | None, typer.Option("--tokens-per-second", min=1e-3, metavar="RATE", help="A node's token rate, if known.")
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        metavar="cpu|cuda", help="What nodes train on: a CPU in float32, a GPU in bfloat16; else as this machine."
    ),
]


def plan(
    config: ConfigArgument = None,
    overrides: SetOption = [],  # noqa: B006
    nodes: NodesOption = None,
    layers: LayersOption = None,
    experts: ExpertsOption = None,
    replication: ReplicationOption = None,
    zones: ZonesOption = None,
    bandwidth: BandwidthOption = None,
    measure: MeasureOption = False,
    tokens_per_s: RateOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a run will cost in memory, bytes, time and disk, and what colluding nodes could decide in it."""
    from scripts.planning.experts import dealt_zones, node_names, place_experts, placement_lines
    from scripts.planning.forecast import forecast
    from scripts.planning.lines import forecast_lines
    from scripts.run.computing import computing, computing_line
    from scripts.terminal.output import Output
    from strategies.placement.placement import REPLICATION
    from trfmoe_core.errors import ConfigError

    output = Output(as_json)
    result: dict[str, Any] = {"training": None}
    if config is None:
        if nodes is None or experts is None:
            raise ConfigError(
                "nothing to plan; give a recipe, such as configs/demo.yaml, or --nodes and --experts, "
                "such as --nodes 31 --experts 155"
            )
        if bandwidth or measure or tokens_per_s or device or overrides:
            raise ConfigError("without a recipe only experts are placed; give one, such as configs/demo.yaml")
        zone_of: dict[str, str | None] = dict.fromkeys(node_names(nodes))
        sizes = (layers or 1, experts, REPLICATION if replication is None else replication)
    else:
        changes = {"model.layers": layers, "model.experts": experts, "experts.replication": replication}
        overrides = [*overrides, *(f"{key}={value}" for key, value in changes.items() if value is not None)]
        recipe = _recipe(config, overrides, nodes)
        run = _planned(recipe, device)
        speed = None
        if measure:
            from scripts.planning.speed import measure_speed

            speed = measure_speed(run)
        result |= forecast(run, speed, tokens_per_s, bandwidth)
        for line in forecast_lines(result):
            output.line(line)
        with suppress(ConfigError):  # the operator's machine need not have the nodes' device
            result["training"] = computing(recipe)
            output.line(computing_line(result["training"]))
        zone_of = dict(run.zones)
        sizes = (recipe.model.layers, recipe.model.experts, recipe.experts.replication)
    if zones is not None:
        zone_of = dealt_zones(list(zone_of), zones)
    if zone_of:
        placed = place_experts(sizes[0], sizes[1], zone_of, sizes[2])
        for line in placement_lines(placed):
            output.line(line)
        result |= placed
    output.result({"outcome": "completed", **result, "exit_code": 0})


def _recipe(config: Path, overrides: list[str], nodes: int | None) -> "Recipe":
    """Returns the recipe, for so many nodes without names if that is asked.

    Raises:
        ConfigError: it cannot be run.
    """
    from scripts.run.preflight import find_recipe
    from strategies.parts import check_parts
    from trfmoe_core.config import check_federated, load_recipe

    recipe = load_recipe(find_recipe(config), overrides)
    if nodes is not None:
        data = recipe.data.model_copy(update={"sources": []})
        recipe = recipe.model_copy(update={"nodes": [], "num_nodes": nodes, "data": data})
    if not recipe.data.sources:
        check_federated(recipe, str(config))
    check_parts(recipe)
    return recipe


def _planned(recipe: "Recipe", device: str | None) -> "PlannedRun":
    """Returns what is planned. The tokenizer is not needed if the model says its number of rows.

    Raises:
        TRFMoEError: the tokenizer or the device is not here.
    """
    from scripts.planning.experts import node_names
    from scripts.planning.federation import PlannedRun
    from trfmoe_core.data.hub.offline import keep_offline
    from trfmoe_core.data.tokenizers import check_vocabulary, load_tokenizer

    zones: dict[str, str | None] = {}
    if not recipe.data.sources:
        zones = {node.name: node.zone for node in recipe.nodes} or dict.fromkeys(node_names(recipe.num_nodes))
    rows = recipe.model.vocab_size
    if rows is None:
        keep_offline(recipe.data)
        tokenizer = load_tokenizer(recipe.data.tokenizer)
        check_vocabulary(recipe.model, tokenizer)
        rows = tokenizer.padded_vocab_size
    planned, where = _on_device(recipe, device)
    return PlannedRun(planned, rows, zones, where)


def _on_device(recipe: "Recipe", device: str | None) -> "tuple[Recipe, torch.device]":
    """Returns the recipe as it would be run on a device, and the device, which need not be on this machine."""
    import torch

    from trfmoe_core.errors import ConfigError
    from trfmoe_core.training.device import resolve_device

    if device is None:
        return recipe, resolve_device(recipe.training.device)
    if device not in ("cpu", "cuda"):
        raise ConfigError(f"--device {device}: is unknown; choose cpu or cuda")
    usual = "bfloat16" if device == "cuda" else "float32"
    precision = usual if recipe.training.precision == "auto" else recipe.training.precision
    training = recipe.training.model_copy(update={"precision": precision})
    return recipe.model_copy(update={"training": training}), torch.device(device)
