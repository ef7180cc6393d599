"""`trfmoe train`: one machine, no federation, the same trainer."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scripts.run.federated_run import show_recipe
from scripts.terminal.options import DryRunOption, JsonOption, ResumeOption, RunDirOption, SetOption

if TYPE_CHECKING:
    import torch

    from scripts.run.outcome import RunOutcome
    from scripts.terminal.output import Output
    from server.run_folder.folder import RunFolder
    from server.run_folder.history import RunHistory
    from trfmoe_core.config import Recipe
    from trfmoe_core.config.sources import SourceSettings
    from trfmoe_core.data.batches.corpus import Corpus
    from trfmoe_core.data.tokenizers import Tokenizer


def train(
    config: Annotated[Path, typer.Argument(help="Recipe, such as configs/demo.yaml.")],
    overrides: SetOption = [],  # noqa: B006
    pdfs: Annotated[
        list[Path], typer.Option("--pdfs", metavar="DIR", help="Train on these files and folders instead.")
    ] = [],  # noqa: B006
    devices: Annotated[
        str | None, typer.Option(metavar="N|all", help="Train on so many devices together (training.devices).")
    ] = None,
    resume: ResumeOption = False,
    run_dir: RunDirOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train on this machine alone, on the data of all nodes together."""
    from scripts.run.preflight import find_recipe
    from scripts.terminal.output import Output
    from server.run_folder.folder import RunFolder
    from trfmoe_core.config import load_recipe
    from trfmoe_core.config.sources import SourceSettings
    from trfmoe_core.places import expand

    output = Output(as_json)
    chosen = [f"training.devices={devices}"] if devices else []
    recipe = load_recipe(find_recipe(config), [*overrides, *chosen]).resolved(Path.cwd())
    data: list[str | SourceSettings] = [str(expand(path).absolute()) for path in pdfs]
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
) -> "RunOutcome":
    """Trains or goes on training on `data`, shows it and returns the outcome.

    Raises:
        TRFMoEError: what is wrong before training starts, or what ended it.
    """
    from scripts.run.federated_run import conclude, resume_hint
    from scripts.run.local_run import NODE, prepare_data
    from scripts.run.outcome import judge
    from scripts.run.preflight import check_run_root, show_files
    from scripts.run.run_folders import new_run, resumed_run
    from scripts.terminal.progress import DataProgress
    from server.run_folder.history import RunHistory
    from server.run_folder.journal import read_events
    from trfmoe_core.errors import ConfigError
    from trfmoe_core.training.device import count_devices, resolve_device

    if not data:
        same = " as when the run began" if run_dir else ""
        raise ConfigError(f"nodes: the recipe lists none, so there is no data; add them, or give --pdfs DIR{same}")
    check_run_root(Path(recipe.run_root))
    device = resolve_device(recipe.training.device)
    size = count_devices(device, recipe.training.devices)
    recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update={"devices": size})})
    folder = resumed_run(recipe, run_dir, "local", output) if resume or run_dir else None
    history = RunHistory(read_events(folder.events_path) if folder else [])
    if folder and history.finished and history.finished["outcome"] == "completed":
        output.line(f"{folder.path}: this run is complete; nothing to do")
    else:
        with DataProgress(output) as progress:
            tokenizer, corpus = prepare_data(recipe, data, progress)
        show_files(NODE, corpus, output)
        folder = folder or new_run(recipe)
        output.line(f"run folder {folder.path}")
        try:
            if size == 1:
                _train_here(folder, tokenizer, corpus, device, history, output)
            else:
                _train_in_ranks(folder, data, device, size, history, output)
        except KeyboardInterrupt:
            step = max(folder.facts().committed, default=0)
            output.line(f"stopped; everything up to step {step} is saved")
            output.line(resume_hint(folder.path, "train") + ("" if recipe.nodes else " and the same --pdfs"))
            raise
    outcome = judge(RunHistory(read_events(folder.events_path)), folder.path)
    conclude(outcome, output, "train")
    return outcome


def _train_here(
    folder: "RunFolder",
    tokenizer: "Tokenizer",
    corpus: "Corpus",
    device: "torch.device",
    history: "RunHistory",
    output: "Output",
) -> None:
    from scripts.run.local_run import LocalRun
    from scripts.terminal.console import RunDisplay, RunLines

    with RunDisplay(output, RunLines(history)) as display:
        LocalRun(folder=folder, tokenizer=tokenizer, corpus=corpus, sink=display.show, device=device).run()


def _train_in_ranks(
    folder: "RunFolder",
    data: "Sequence[str | SourceSettings]",
    device: "torch.device",
    size: int,
    history: "RunHistory",
    output: "Output",
) -> None:
    """Lets one process a device train, and shows what the first of them writes down."""
    from threading import Event, Thread

    from scripts.run.federated_run import resume_hint
    from scripts.run.local_rank import DATA
    from scripts.terminal.console import RunDisplay, RunLines
    from server.run_folder.journal import JournalReader
    from trfmoe_core.errors import RunError
    from trfmoe_core.training.launch import launch

    reader, ended = JournalReader(folder.events_path), Event()
    for _ in reader.read():
        pass  # what `history` has
    with RunDisplay(output, RunLines(history)) as display:

        def show() -> None:
            for event in reader.follow(ended.is_set):
                display.show(event)

        viewer = Thread(target=show, daemon=True)
        viewer.start()
        try:
            arguments = [str(folder.path), DATA.dump_json(list(data)).decode()]
            launch("scripts.run.local_rank", arguments, device, size, folder.path / "ranks")
        except RunError as error:
            raise RunError(f"{error}; {resume_hint(folder.path, 'train')}") from error
        finally:
            ended.set()
            viewer.join()
