"""`trfmoe runs list | show | compare | clean`: the runs on this machine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scripts.terminal.options import JsonOption
from trfmoe_core.counts import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

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
    """Compare runs in columns: how far and how good they are, and every key in which their recipes differ."""
    from scripts.run.recipe_table import recipe_table, run_names
    from scripts.run.run_folders import run_folder
    from scripts.run.summaries import summarize
    from scripts.terminal.output import Output
    from trfmoe_core.errors import ConfigError

    output = Output(as_json)
    if len(given) < 2:
        raise ConfigError("give two or more run folders to compare")
    folders = [run_folder(path) for path in given]
    found = [summarize(folder) for folder in folders]
    names = run_names(folders)
    output.view(_columns(("", *names), _figures(found)))
    output.line()
    differing = recipe_table(folders)
    if differing:
        output.view(_columns(("recipe", *names), [(row.key, *row.shown) for row in differing]))
    else:
        output.line("the recipes are the same")
    output.result(
        {
            "outcome": "compared",
            "runs": [_payload(run) for run in found],
            "recipe": {row.key: dict(zip(names, row.values, strict=True)) for row in differing},
            "exit_code": 0,
        }
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


def _figures(found: "Sequence[RunSummary]") -> "list[tuple[str, ...]]":
    """Returns the lines of a comparison that are not of the recipes."""

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.4f}"

    return [
        ("started", *(run.started or "-" for run in found)),
        ("done", *(f"{run.unit} {run.done} of {run.planned}" for run in found)),
        ("outcome", *(run.outcome for run in found)),
        ("bits per byte, last", *(number(run.bits_per_byte) for run in found)),
        ("bits per byte, best", *(number(run.best) for run in found)),
        ("outvoted", *(", ".join(run.outvoted) or "nobody" for run in found)),
        ("size", *(f"{run.size / 1e6:.1f} MB" for run in found)),
    ]


def _columns(head: "Sequence[str]", rows: "Sequence[Sequence[str]]") -> "RenderableType":
    """Returns a table without lines."""
    from rich.table import Table
    from rich.text import Text

    from scripts.terminal.output import one_line

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for title in head:
        table.add_column(Text(one_line(title)), overflow="fold")
    for row in rows:
        table.add_row(*(Text(one_line(cell)) for cell in row))
    return table


def _show_seconds(seconds: dict[str, float], output: "Output") -> None:
    total = sum(seconds.values())
    if total:
        output.line(f"a round takes {total:.2f} s (mean without the first), by what it waits for:")
    for owner, part in sorted(seconds.items(), key=lambda item: -item[1]):
        output.line(f"  {owner:<22}{part:>8.2f} s{part / total:>7.1%}")


def _payload(run: "RunSummary") -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(run), "path": str(run.path)}
