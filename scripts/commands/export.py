"""`trfmoe export`: a run's model as a folder that stock transformers opens."""

import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from scripts.commands.generate import LastOption, RoundOption, RunArgument
from scripts.terminal.options import JsonOption


def export(
    run: RunArgument = None,
    out: Annotated[
        Path | None, typer.Argument(help="Folder to write; must be new or empty. A single path is this one.")
    ] = None,
    dtype: Annotated[Literal["float32", "bfloat16"], typer.Option(help="Type of the weights.")] = "float32",
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Open the result with transformers and compare logits.")
    ] = True,
    max_shard_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Size of a file of weights, at most, such as 5GB (50GB).")
    ] = None,
    without: Annotated[
        str | None, typer.Option(metavar="NODE", help="Leave out what this node taught the experts; the trunk stays.")
    ] = None,
    number: RoundOption = None,
    last: LastOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a run's model as a folder that stock transformers opens: Mixtral, or the family that has its parts."""
    from scripts.run.models.exporting import export_round
    from scripts.run.run_folders import run_with_model
    from scripts.terminal.output import Output
    from server.run_folder.departure import plan_departure
    from server.run_folder.models import better_start, choose_round, unit_of
    from trfmoe_core.model.stock.exporting import export_remarks
    from trfmoe_core.model.stock.weight_files import parse_size

    output = Output(as_json)
    if out is None:
        run, out = None, _target(run)
    folder = run_with_model(run)
    for remark in export_remarks(folder.recipe.model):
        Output.warning(remark)
    chosen = choose_round(folder, number, last)
    if remark := better_start(folder, chosen):
        Output.warning(remark)
    size = parse_size(max_shard_size) if max_shard_size else None
    departure = plan_departure(folder, chosen, without) if without else None
    difference = export_round(folder, chosen, out, dtype, check, size, departure)
    output.line(f"the model after {unit_of(folder)} {chosen} of {folder.path} is in {out}")
    for line in departure.told if departure else ():
        output.line(line)
    if difference is not None:
        output.line(f"transformers opens it and gives the same logits (largest difference {difference:.1e})")
    output.line(f"open it with AutoModelForCausalLM.from_pretrained({str(out)!r}), or serve it:")
    output.line(f"  transformers serve {shlex.quote(str(out))}      or      vllm serve {shlex.quote(str(out))}")
    result: dict[str, Any] = {
        "outcome": "completed",
        "round": chosen,
        "out": str(out.absolute()),
        "max_difference": difference,
    }
    if departure:
        gone = {"node": without, "experts": departure.versions, "trunk_rounds": departure.trunk_rounds}
        result["without"] = {**gone, "untouched": departure.untouched}
    output.result({**result, "dtype": dtype, "exit_code": 0})


def _target(path: Path | None) -> Path:
    """Returns the folder to write, where the latest run is exported.

    Raises:
        ConfigError: none is named.
    """
    from trfmoe_core.errors import ConfigError

    if path is None or (path / "recipe.yaml").is_file():
        raise ConfigError(
            "no folder to write is named; give one: trfmoe export RUN FOLDER, or for the latest run "
            "trfmoe export FOLDER"
        )
    return path
