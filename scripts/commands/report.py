"""`trfmoe report`: writes a run's HTML report again from its journal, or one page that compares several runs."""

from pathlib import Path
from typing import Annotated

import typer

from scripts.terminal.options import JsonOption

RunsArgument = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[RUN...]", help="Run folders, or their names; without one, the latest run."),
]
DEFAULT_OUT = Path("comparison.html")


def report(
    runs: RunsArgument = None,
    out: Annotated[Path, typer.Option(help="File of a comparison of several runs.")] = DEFAULT_OUT,
    as_json: JsonOption = False,
) -> None:
    """Write a run's report.html again, finished or not; of several runs, one page that compares them."""
    from scripts.run.recipe_table import recipe_table, run_names
    from scripts.run.run_folders import run_folder
    from scripts.terminal.output import Output
    from server.report.comparison import render_comparison
    from server.report.page import write_report
    from server.run_folder.history import RunHistory
    from server.run_folder.journal import read_events
    from trfmoe_core.atomic import write_text

    output = Output(as_json)
    chosen: list[Path | None] = list(runs) if runs else [None]
    folders = [run_folder(run) for run in chosen]
    if len(folders) == 1:
        path = write_report(folders[0].path)
    else:
        path = out.absolute()
        histories = {
            name: RunHistory(read_events(folder.events_path))
            for name, folder in zip(run_names(folders), folders, strict=True)
        }
        write_text(path, render_comparison(histories, [(row.key, *row.shown) for row in recipe_table(folders)]))
    output.line(str(path))
    output.result({"outcome": "completed", "report": str(path), "exit_code": 0})
