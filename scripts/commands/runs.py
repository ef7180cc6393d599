"""`trfmoe runs list | show | compare | clean`: the runs on this machine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scripts.terminal.options import JsonOption
from trfmoe_core.counts import counted

if TYPE_CHECKING:
    from scripts.run.summaries import RunSummary
    from scripts.terminal.output import Output

runs = typer.Typer(
    help="The runs on this machine: list, show and compare them, free what they take.", no_args_is_help=True
)
RunArgument = Annotated[
    Path | None, typer.Argument(metavar="[RUN]", help="Run folder, such as runs/demo-001; without one, the latest run.")
]
RunsArgument = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, such as runs/demo-001.")]


@runs.command("list")
def list_runs(
    root: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="The folder that holds the runs.")] = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Show every run in one line: how far it came, how good it is, what it takes on the disk."""
    from scripts.run.summaries import run_folders_below, summarize
    from scripts.terminal.output import Output

    output = Output(as_json)
    found = [summarize(folder) for folder in run_folders_below(root)]
    for run in found:
        output.line(_line(run))
    if not found:
        output.line(f"no run below {root}")
    if state := sum(run.state_size for run in found if run.outcome != "running"):
        output.line(f"{state / 1e6:.1f} MB are only needed to go on with runs; trfmoe runs clean RUN... frees them")
    output.result({"outcome": "listed", "runs": [_payload(run) for run in found], "exit_code": 0})


@runs.command()
def show(run: RunArgument = None, as_json: JsonOption = False) -> None:
    """Show a run: progress, best round, who was outvoted, where its rounds' time goes, what it takes on the disk."""
    from scripts.run.run_folders import run_folder
    from scripts.run.summaries import summarize
    from scripts.terminal.output import Output
    from server.report.round_seconds import train_share

    output = Output(as_json)
    found = summarize(run_folder(run))
    output.line(_line(found))
    output.line(f"folder {found.path}; report {found.path / 'report.html'}")
    if found.best is not None:
        output.line(f"best: {found.unit} {found.best_round}, bits/byte {found.best:.4f}")
    for name, rounds in found.outvoted.items():
        output.line(f"outvoted: {name} in {counted(rounds, 'round')}")
    _show_seconds(found.seconds, output)
    output.line(f"{found.state_size / 1e6:.1f} MB of it are only needed to go on with the run")
    output.result({**_payload(found), "train_share": train_share(found.seconds), "exit_code": 0})


@runs.command()
def compare(given: RunsArgument, as_json: JsonOption = False) -> None:
    """Compare runs: one line each, then every key in which their recipes differ from the first one's."""
    from scripts.run.run_folders import run_folder
    from scripts.run.summaries import recipe_differences, summarize
    from scripts.terminal.output import Output, one_line
    from trfmoe_core.errors import ConfigError

    output = Output(as_json)
    if len(given) < 2:
        raise ConfigError("give two or more run folders to compare")
    folders = [run_folder(path) for path in given]
    found = [summarize(folder) for folder in folders]
    for run in found:
        output.line(_line(run))
    differing = recipe_differences(folders)
    for line in differing or ["the recipes are the same"]:
        output.line(one_line(line))
    output.result(
        {"outcome": "compared", "runs": [_payload(run) for run in found], "recipe": differing, "exit_code": 0}
    )


@runs.command()
def clean(given: RunsArgument, as_json: JsonOption = False) -> None:
    """Delete what runs only need to go on: state of simulated nodes. Models, journals and reports stay."""
    from scripts.run.run_folders import run_folder
    from scripts.run.summaries import drop_state
    from scripts.terminal.output import Output

    output = Output(as_json)
    freed = {}
    for folder in [run_folder(path) for path in given]:
        freed[str(folder.path)] = size = drop_state(folder)
        output.line(f"{folder.path}: {size / 1e6:.1f} MB freed")
    output.result({"outcome": "cleaned", "freed": freed, "exit_code": 0})


def _line(run: "RunSummary") -> str:
    parts = [run.path.name, run.started, f"{run.unit} {run.done} of {run.planned}", run.outcome]
    if run.bits_per_byte is not None:
        parts.append(f"bits/byte {run.bits_per_byte:.4f}")
    return "  ".join([*filter(None, parts), f"{run.size / 1e6:.1f} MB"])


def _show_seconds(seconds: dict[str, float], output: "Output") -> None:
    total = sum(seconds.values())
    if total:
        output.line(f"a round takes {total:.2f} s (mean without the first), by what it waits for:")
    for owner, part in sorted(seconds.items(), key=lambda item: -item[1]):
        output.line(f"  {owner:<22}{part:>8.2f} s{part / total:>7.1%}")


def _payload(run: "RunSummary") -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(run), "path": str(run.path)}
