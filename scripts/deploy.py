"""`trfmoe deploy`: real processes with TLS and keys, on this machine or as a kit for many."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scripts.simulate import DryRunOption, JsonOption, PdfsOption, ResumeOption, RunDirOption, SetOption

if TYPE_CHECKING:
    from scripts.flower_commands import Isolation
    from scripts.outcome import Outcome
    from scripts.output import Output
    from server.run_folder import RunFolder

deploy = typer.Typer(help="Run on real processes with TLS and keys: here, or on many hosts.", no_args_is_help=True)
PAIRS: "dict[str, Isolation]" = {"production": "process", "default": "subprocess"}
PairOption = Annotated[
    str, typer.Option("--pair", help="production: SuperLink and executor are two processes; default: Flower's own.")
]


@deploy.command()
def local(
    config: Annotated[Path, typer.Argument(help="Recipe, such as configs/tiny.yaml.")],
    overrides: SetOption = [],  # noqa: B006
    pdfs: PdfsOption = [],  # noqa: B006
    resume: ResumeOption = False,
    run_dir: RunDirOption = None,
    pair: PairOption = "production",
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run a recipe on a SuperLink and SuperNodes of this machine: separate processes, TLS, a key for every node."""
    from scripts.output import Output
    from scripts.simulate import resolve, run_federation, show_recipe
    from trfmoe_core.errors import ConfigError

    output = Output(as_json)
    if pair not in PAIRS:
        raise ConfigError(f"--pair {pair}: is neither production nor default")
    recipe = resolve(config, overrides, pdfs)
    if dry_run:
        show_recipe(recipe, output)
        return
    engine = partial(run_deployed, isolation=PAIRS[pair])
    outcome = run_federation(recipe, output, resume=resume, run_dir=run_dir, engine=engine, command="deploy local")
    output.result(outcome.payload())
    raise typer.Exit(outcome.exit_code)


def run_deployed(folder: "RunFolder", output: "Output", isolation: "Isolation") -> "Outcome":
    """Runs a run folder on a deployment of this machine, and returns its outcome.

    Raises:
        RunError: the deployment or the run does not start.
    """
    from scripts.console import RunDisplay, RunLines
    from scripts.deployment import Deployment
    from scripts.outcome import judge
    from server.events import follow_events, read_events
    from server.history import RunHistory

    earlier = read_events(folder.events_path)
    lines = RunLines(RunHistory(earlier))
    with Deployment(folder, isolation, output.line) as deployment:
        deployment.start()
        output.line(f"SuperLink, executor and {len(folder.recipe.nodes)} nodes are up; logs {folder.path / 'logs'}")
        deployment.submit()
        with RunDisplay(output, lines) as display:
            for number, event in enumerate(follow_events(folder.events_path, deployment.finished)):
                if number >= len(earlier):
                    display.show(event)
        status, details = deployment.status()
    return judge(lines.history, folder.path, status, details)
