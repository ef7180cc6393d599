"""Shows a run of a deployment while it goes on, and signs its journal when it has ended."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from scripts.deploy.kit.kit import SIGNING_KEY
from scripts.run.outcome import RunOutcome, judge
from scripts.run.signing import sign_run
from scripts.terminal.console import RunDisplay, RunLines
from scripts.terminal.node_progress import nodes_progress
from scripts.terminal.output import Output
from scripts.terminal.run_view import nodes_view
from server.run_folder.folder import RunFolder
from server.run_folder.history import RunHistory
from server.run_folder.journal import JournalReader
from trfmoe_core.errors import TRFMoEError


class Engine(Protocol):
    """What runs the rounds of a run folder."""

    def finished(self) -> bool:
        """Returns True if the run has come to its end; asked often."""

    def status(self) -> tuple[str, str]:
        """Returns the status of a finished run and details."""


def follow(folder: RunFolder, output: Output, engine: Engine, begin: Callable[[], None]) -> RunOutcome:
    """Shows the events of a run as they come, until it ends, and returns its outcome.

    Args:
        folder: The run.
        output: Where it is shown.
        engine: What runs it.
        begin: Called once the earlier events have been read: submits the run, or attaches to it.

    Raises:
        RunError: `begin` fails.
    """
    reader = JournalReader(folder.events_path)
    lines = RunLines(RunHistory(reader.read()))
    begin()
    with RunDisplay(
        output, lines, lambda: nodes_view(lines.history, True, nodes_progress(folder, lines.history))
    ) as display:
        for event in reader.follow(display.watching(engine.finished)):
            display.show(event)
    status, details = engine.status()
    return judge(lines.history, folder.path, status, details)


def sign_ended(folder: RunFolder, kit: Path, output: Output) -> None:
    """Signs the journal of a run that has ended with the kit's key, and says so.

    If it cannot be signed, it says why: the run itself is not affected. Kits of earlier releases have no key.

    Args:
        folder: The run.
        kit: The coordinator's folder.
        output: Where it is said.
    """
    key = kit / SIGNING_KEY
    if not key.exists():
        output.line(f"the journal is not signed: {key} is missing")
        return
    try:
        said = sign_run(folder, key).statement
    except TRFMoEError as error:
        output.line(f"the journal is not signed: {error}", style="bold red")
        return
    output.line(f"signed by {key} at entry {said.entries}, head {said.head}")
