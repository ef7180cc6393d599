"""`trfmoe train`: one machine, no federation, the same trainer."""

from pathlib import Path
from typing import Annotated

import typer

from scripts.terminal.options import AllOption, DryRunOption, JsonOption, ResumeOption, SetOption


def train(
    config: Annotated[
        Path | None,
        typer.Argument(help="Recipe, such as configs/single.yaml; not needed with --from or --run-dir."),
    ] = None,
    overrides: SetOption = [],  # noqa: B006
    pdfs: Annotated[
        list[Path], typer.Option("--pdfs", metavar="DIR", help="Train on these files and folders instead.")
    ] = [],  # noqa: B006
    devices: Annotated[
        str | None, typer.Option(metavar="N|all", help="Train on so many devices together (training.devices).")
    ] = None,
    source: Annotated[
        Path | None, typer.Option("--from", metavar="RUN", help="Begin with the weights of this run: its best model.")
    ] = None,
    last: Annotated[bool, typer.Option("--last", help="With --from: the newest model instead of the best.")] = False,
    resume: ResumeOption = False,
    run_dir: Annotated[
        Path | None,
        typer.Option("--run-dir", metavar="DIR", help="Go on with the run of this folder; no recipe needed."),
    ] = None,
    dry_run: DryRunOption = False,
    everything: AllOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train on this machine alone, on all the data of the recipe together."""
    from scripts.run.dry_run import show_dry_run
    from scripts.run.federated_run import warn_of_widths
    from scripts.run.local.command import run_local
    from scripts.run.local.recipe import check_text, local_name, local_recipe
    from scripts.run.local.warm_start import check_warm_start, warm_start
    from scripts.run.part_names import check_part_names
    from scripts.run.preflight import find_recipe
    from scripts.run.run_folders import run_folder
    from scripts.terminal.output import Output
    from trfmoe_core.config import load_recipe
    from trfmoe_core.errors import ConfigError

    output = Output(as_json)
    if source and (resume or run_dir):
        raise ConfigError("--from begins a new run, and --resume and --run-dir go on with one; leave one of them out")
    if last and not source:
        raise ConfigError("--last: says which model --from takes; give --from RUN too")
    begun = run_folder(run_dir) if run_dir else None
    origin = run_folder(source) if source else None
    known = begun or origin
    path = config or (known.path / "recipe.yaml" if known else None)
    if path is None:
        raise ConfigError(
            "no recipe; give one, such as configs/single.yaml, or --run-dir RUN to go on with a run, or --from RUN to "
            "begin with its weights"
        )
    if devices is not None and devices != "all" and not devices.isdecimal():
        raise ConfigError(f"--devices {devices}: give a number of devices, or all")
    settings = [*overrides, *([f"training.devices={devices}"] if devices else [])]
    given = load_recipe(find_recipe(path), settings).resolved(Path.cwd())
    check_part_names(given, str(path), settings)
    recipe = local_recipe(given, pdfs)
    if not (begun and begun.recipe.name == recipe.name):  # an imported run may be begun by either command
        recipe = recipe.model_copy(update={"name": local_name(recipe.name)})
    check_text(recipe)
    warn_of_widths(recipe)
    start = warm_start(origin, last, own_recipe=config is None) if origin else None
    if start:
        recipe = check_warm_start(start, recipe)
    if dry_run:
        show_dry_run(recipe, output, everything, [start.told] if start else [])
        return
    named = recipe.data.sources if pdfs else []
    outcome = run_local(
        recipe,
        output,
        resume=resume,
        run_dir=begun.path if begun else None,
        pdfs=named,
        start=start,
    )
    output.result(outcome.payload())
    raise typer.Exit(outcome.exit_code)
