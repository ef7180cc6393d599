"""`trfmoe status`: how far a run is and what its nodes do, from its journal alone."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from scripts.commands.generate import RunArgument
from scripts.terminal.options import JsonOption

if TYPE_CHECKING:
    from rich.console import RenderableType

    from server.run_folder.history import RunHistory

POLL_S = 1.0


def status(
    run: RunArgument = None,
    follow: Annotated[bool, typer.Option("--follow", help="Show it until the run ends; Ctrl-C ends the view.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show how far a run is and what every node does. A copy of the run folder is enough."""
    from dataclasses import asdict

    from rich.live import Live

    from scripts.run.run_folders import run_folder
    from scripts.terminal.console import Lines, RunLines
    from scripts.terminal.node_progress import nodes_progress
    from scripts.terminal.output import Output, one_line
    from scripts.terminal.run_view import node_states, run_view
    from scripts.terminal.training import TrainingLines
    from server.run_folder.history import RunHistory
    from server.run_folder.journal import JournalReader
    from server.run_folder.ledger import ledger

    output = Output(as_json)
    folder = run_folder(run)
    reader, name = JournalReader(folder.events_path), folder.path.name
    history = RunHistory(reader.read() if folder.events_path.exists() else ())

    def view() -> "RenderableType":
        return run_view(history, name, folder.is_locked(), nodes_progress(folder, history))

    lines: Lines = RunLines(history) if history.unit == "round" else TrainingLines(history)
    if not follow or history.finished:
        output.view(view())
    elif output.console.is_terminal:
        with Live(view(), console=output.console, refresh_per_second=4) as live:
            while not history.finished:
                time.sleep(POLL_S)
                for event in reader.read():
                    lines.feed(event)
                live.update(view())
    else:
        output.view(view())
        for event in reader.follow(lambda: history.finished is not None, POLL_S):
            for line in lines.feed(event):
                output.line(one_line(line))
    working = folder.is_locked()
    outcome = str(history.finished["outcome"]) if history.finished else _unfinished(history, working)
    nodes = node_states(history, working, nodes_progress(folder, history)) if history.unit == "round" else {}
    output.result(
        {
            "outcome": outcome,
            "unit": history.unit,
            "done": max(history.committed, default=0),
            "planned": history.num_rounds,
            "bits_per_byte": history.bits_per_byte,
            "nodes": nodes,
            "ledger": {node: asdict(account) for node, account in ledger(history).items()},
            "exit_code": 0,
        }
    )


def _unfinished(history: "RunHistory", working: bool) -> str:
    """Returns the state of a run that has no end in its journal."""
    if working:
        return "running"
    return "interrupted" if history.started else "not begun"
