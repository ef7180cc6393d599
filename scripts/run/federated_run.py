"""What the commands that federate share: reading the recipe, running or resuming the federation, and its conclusion."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scripts.run.outcome import RunOutcome
    from scripts.terminal.output import Output
    from server.run_folder.folder import RunFolder
    from trfmoe_core.config import Recipe


def resolve(config: Path | None, overrides: list[str], pdfs: list[Path], run_dir: Path | None = None) -> "Recipe":
    """Returns the recipe with overrides and other sources applied and every path absolute against this folder.

    Args:
        config: The recipe; None takes that of `run_dir`.
        overrides: `KEY=VALUE` each.
        pdfs: Other text for the nodes.
        run_dir: The run that goes on.

    Raises:
        ConfigError: there is no recipe, it has a wrong value, or names a part that does not exist.
        RunFolderError: `run_dir` is no run folder.
    """
    from scripts.run.data.options import with_sources
    from scripts.run.part_names import check_part_names
    from scripts.run.preflight import find_recipe
    from scripts.run.run_folders import run_folder
    from trfmoe_core.config import load_recipe
    from trfmoe_core.errors import ConfigError

    if config is None:
        if run_dir is None:
            raise ConfigError("no recipe; give one, such as configs/demo.yaml, or --run-dir RUN to go on with a run")
        config = run_folder(run_dir).path / "recipe.yaml"
    recipe = load_recipe(find_recipe(config), overrides)
    check_part_names(recipe, str(config), overrides)
    warn_of_widths(recipe)
    return with_sources(recipe, pdfs).resolved(Path.cwd())


def warn_of_widths(recipe: "Recipe") -> None:
    """Writes a warning if stock transformers will not run an export of the recipe's model as usual."""
    from scripts.terminal.output import Output
    from trfmoe_core.model.stock.exporting import export_remarks

    for remark in export_remarks(recipe.model):
        Output.warning(remark)


def run_federation(
    recipe: "Recipe",
    output: "Output",
    *,
    resume: bool = False,
    run_dir: Path | None = None,
    engine: "Callable[[RunFolder, Output], RunOutcome] | None" = None,
    command: str = "simulate",
) -> "RunOutcome":
    """Runs or resumes a federation, shows it, and returns its real outcome. Nothing it started is left running.

    Args:
        recipe: The run.
        output: Where it is shown.
        resume: Go on with the latest run of the recipe.
        run_dir: Go on with this one.
        engine: Runs the rounds of a run folder; Flower's simulation when not given.
        command: The subcommand by which a user goes on with it.

    Raises:
        TRFMoEError: what is wrong before anything is started, or that Flower did not start.
    """
    from scripts.run.outcome import judge
    from scripts.run.preflight import check_run_root, prepare_nodes
    from scripts.run.resuming import change_settings, changes_length, resumed_run
    from scripts.run.run_folders import Difference, new_run
    from server.run_folder.history import RunHistory
    from server.run_folder.journal import read_events
    from trfmoe_core.config import check_federated

    check_federated(recipe)
    check_run_root(Path(recipe.run_root))
    folder, changed = None, list[Difference]()
    if resume or run_dir:
        folder, recipe, changed = resumed_run(recipe, run_dir, command)
        history = RunHistory(read_events(folder.events_path))
        if history.finished and history.finished["outcome"] == "completed" and not changes_length(changed):
            output.line(f"{folder.path}: this run is complete after {max(history.committed)} rounds; nothing to do")
            output.line(f"make it longer with: {go_on(folder.path, command)} --set rounds.num_rounds=N")
            outcome = judge(history, folder.path)
            conclude(outcome, output, command)
            return outcome
    prepare_nodes(recipe, output, choosable=folder is None and command == "simulate")
    if folder is None:
        folder = new_run(recipe)
    elif changed:
        output.line(change_settings(folder, recipe, changed))
    output.line(f"run folder {folder.path}")
    for line in announce(recipe):
        output.line(line)
    try:
        outcome = (engine or simulate_rounds)(folder, output)
    except KeyboardInterrupt:
        saved = max(folder.facts().committed, default=0)
        raise output.interrupted(folder.path, saved, "round", go_on(folder.path, command)) from None
    conclude(outcome, output, command)
    return outcome


def announce(recipe: "Recipe") -> list[str]:
    """Returns one line for every node that plays an attack on purpose."""
    from clients.attacks.base import describe

    lines = []
    for node in recipe.nodes:
        if node.drill is not None:
            until = f" to {node.drill.to_round}" if node.drill.to_round else " on"
            told = f"drill: {node.name} is told to lie (it {describe(node.drill)})"
            lines.append(f"{told} from round {node.drill.from_round}{until}")
    return lines


def conclude(outcome: "RunOutcome", output: "Output", command: str = "simulate") -> None:
    """Writes where the results are, and for a run that did not complete why and how to go on."""
    from scripts.run.outcome import show_results

    show_results(outcome, output)
    if not outcome.completed:
        if not outcome.stopped:
            output.line(f"its log is {outcome.run_dir / 'flower.log'}")
        output.line(resume_hint(outcome.run_dir, command))


def resume_hint(run_dir: Path, command: str = "simulate") -> str:
    """Returns how to go on with a run that has not ended."""
    from server.run_folder.folder import RunFolder

    last = max(RunFolder.open(run_dir).facts().committed, default=None)
    where = "begin it again" if last is None else f"go on after round {last}, which is saved,"
    return f"{where} with: {go_on(run_dir, command)}"


def go_on(run_dir: Path, command: str = "simulate") -> str:
    """Returns the command that goes on with a run."""
    return f"trfmoe {command} --run-dir {shlex.quote(str(run_dir))}"


def simulate_rounds(folder: "RunFolder", output: "Output") -> "RunOutcome":
    """Runs the rounds of a run folder on Flower's simulation engine, and shows them."""
    from scripts.run.outcome import judge
    from scripts.run.resources import simulation_resources
    from scripts.run.simulation import FlowerSimulation, app_folder
    from scripts.terminal.console import RunDisplay, RunLines
    from scripts.terminal.node_progress import nodes_progress
    from scripts.terminal.run_view import nodes_view
    from server.run_folder.history import RunHistory
    from server.run_folder.journal import JournalReader
    from trfmoe_core.counts import counted

    reader = JournalReader(folder.events_path)
    lines = RunLines(RunHistory(reader.read()))
    earlier = reader.head.entries
    output.line(f"starting Flower with {counted(folder.recipe.federation_size, 'simulated node')}")
    with FlowerSimulation(folder.path / "flower.log") as flower:
        flower.submit(
            app_folder(),
            folder.recipe.federation_size,
            {"recipe": str(folder.path / "recipe.yaml"), "run-dir": str(folder.path)},
            simulation_resources(folder.recipe),
        )
        with RunDisplay(
            output, lines, lambda: nodes_view(lines.history, True, nodes_progress(folder, lines.history))
        ) as display:
            for event in reader.follow(display.watching(flower.finished)):
                display.show(event)
        status, details = flower.status()
        started = lines.history.started.get("seq", -1) >= earlier
    if lines.history.finished is None and not started and not details.strip("N/A"):
        details = f"the server app did not start; see {folder.path / 'flower.log'}"
    return judge(lines.history, folder.path, status, details)
