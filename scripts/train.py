"""`trfmoe train`: one machine, no federation, the same trainer."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scripts.simulate import DryRunOption, JsonOption, ResumeOption, RunDirOption, SetOption, show_recipe

if TYPE_CHECKING:
    from scripts.outcome import Outcome
    from scripts.output import Output
    from trfmoe_core.config import Recipe
    from trfmoe_core.data.sources import SourceSettings


def train(
    config: Annotated[Path, typer.Argument(help="Recipe, such as configs/demo.yaml.")],
    overrides: SetOption = [],  # noqa: B006
    pdfs: Annotated[
        list[Path], typer.Option("--pdfs", metavar="DIR", help="Train on these files and folders instead.")
    ] = [],  # noqa: B006
    resume: ResumeOption = False,
    run_dir: RunDirOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train on this machine alone, on the data of all nodes together."""
    from scripts.output import Output
    from scripts.preflight import find_recipe
    from server.run_folder import RunFolder
    from trfmoe_core.config import load_recipe
    from trfmoe_core.data.sources import SourceSettings

    output = Output(as_json)
    recipe = load_recipe(find_recipe(config), overrides).resolved(Path.cwd())
    data: list[str | SourceSettings] = [str(path.expanduser().absolute()) for path in pdfs]
    data = data or [entry for node in recipe.nodes for entry in node.data]
    nodes = [] if pdfs else recipe.nodes
    # The name ends in -local so that `simulate --resume` and `train --resume` never meet in one folder.
    name = recipe.name if recipe.name.endswith("-local") else f"{recipe.name[:58]}-local"
    if run_dir and RunFolder.open(run_dir).recipe.name == recipe.name:
        name = recipe.name  # an imported run, which either command may begin
    recipe = recipe.model_copy(update={"name": name, "nodes": nodes, "num_nodes": max(3, len(nodes))})
    if dry_run:
        show_recipe(recipe, output)
        return
    outcome = run_local(recipe, data, output, resume=resume, run_dir=run_dir)
    output.result(outcome.payload())
    raise typer.Exit(outcome.exit_code)


def run_local(
    recipe: "Recipe",
    data: "Sequence[str | SourceSettings]",
    output: "Output",
    *,
    resume: bool = False,
    run_dir: Path | None = None,
) -> "Outcome":
    """Trains or goes on training on `data`, shows it and returns the outcome.

    Raises:
        TRFMoEError: what is wrong before training starts, or what ended it.
    """
    from clients.node import cache_folder
    from scripts.console import RunDisplay, RunLines
    from scripts.local_run import NODE, LocalRun
    from scripts.outcome import judge
    from scripts.preflight import check_run_root, show_files
    from scripts.run_folders import new_run, resumed_run
    from scripts.simulate import conclude
    from server.events import read_events
    from server.history import RunHistory
    from trfmoe_core.config import NodeSettings
    from trfmoe_core.data.corpus import prepare_corpus
    from trfmoe_core.data.tokenizer import load_tokenizer
    from trfmoe_core.errors import ConfigError

    if not data:
        raise ConfigError("nodes: the recipe lists none, so there is no data; add them, or give --pdfs DIR")
    check_run_root(Path(recipe.run_root))
    folder = resumed_run(recipe, run_dir, "local", output) if resume or run_dir else None
    history = RunHistory(read_events(folder.events_path) if folder else [])
    if folder and history.finished and history.finished["outcome"] == "completed":
        output.line(f"{folder.path}: this run is complete; nothing to do")
    else:
        tokenizer = load_tokenizer(recipe.data.tokenizer)
        corpus = prepare_corpus(
            data, recipe.data, tokenizer, cache_folder(NodeSettings.model_validate({"name": NODE, "data": data}))
        )
        show_files(NODE, corpus, output)
        folder = folder or new_run(recipe)
        output.line(f"run folder {folder.path}")
        try:
            with RunDisplay(output, RunLines(history)) as display:
                LocalRun(folder=folder, tokenizer=tokenizer, corpus=corpus, sink=display.show).run()
        except KeyboardInterrupt:
            output.line(f"stopped; go on at the last committed round with the same command and --run-dir {folder.path}")
            raise
    outcome = judge(history, folder.path)
    conclude(outcome, output)
    return outcome
