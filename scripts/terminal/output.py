"""The output of a command: lines for people, and with `--json` one object for programs as the last line.

Everything that is shown goes through here, and names, reasons and generated text come from elsewhere; so here is where
what a terminal would obey is escaped.
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from trfmoe_core.terminal import visible

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress

INTERRUPTED = 130
"""Exit code after Ctrl-C or a signal that asks to stop."""


class _Console(Console):
    """Writes for people. A closed pipe raises BrokenPipeError, as everywhere else."""

    def on_broken_pipe(self) -> None:
        """Raises the BrokenPipeError, where rich would exit with 1."""
        raise


class Output:
    """Lines go to standard output; with `as_json` they go to standard error and the result to standard output."""

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json
        self.console = _Console(stderr=as_json, highlight=False, markup=False, emoji=False, soft_wrap=True)

    def line(self, text: str = "", style: str | None = None) -> None:
        """Writes one line for people."""
        self.console.print(visible(text), style=style)

    def part(self, text: str) -> None:
        """Writes part of a line for people, at once."""
        self.console.print(visible(text), end="")
        self.console.file.flush()

    def error(self, text: str) -> None:
        """Writes why the command failed to standard error."""
        sys.stdout.flush()
        sys.stderr.write(f"error: {visible(text)}\n")

    @staticmethod
    def warning(text: str) -> None:
        """Writes a warning to standard error."""
        sys.stderr.write(f"warning: {visible(text)}\n")

    @staticmethod
    def note(text: str) -> None:
        """Writes a remark to standard error, so that standard output holds the result alone."""
        sys.stderr.write(f"{visible(text)}\n")

    def view(self, content: "RenderableType") -> None:
        """Writes what rich lays out, such as a table, for people."""
        self.console.print(content)

    def bar(self) -> "Progress":
        """Returns a bar that is not shown yet; describe its tasks in `one_line`."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
        return Progress(*columns, TimeElapsedColumn(), console=self.console, transient=True)

    def result(self, payload: dict[str, Any]) -> None:
        """Writes the outcome for programs, if `--json` was given."""
        if self.as_json:
            sys.stdout.write(json.dumps(payload, default=str) + "\n")
            sys.stdout.flush()

    def interrupted(self, run_dir: Path, saved: int, unit: str, go_on: str) -> SystemExit:
        """Says what is saved of a run that was interrupted and how to go on.

        Args:
            run_dir: The run.
            saved: Its last saved round or step; 0: none.
            unit: What `saved` counts.
            go_on: The command that goes on with it.

        Returns:
            What the command ends with. `typer.Exit` would be reported as an interrupted command once more.
        """
        kept = f"everything up to {unit} {saved} is saved" if saved else f"no {unit} is saved yet"
        self.line(f"stopped; {kept}")
        self.line(f"{f'go on after {unit} {saved}' if saved else 'begin it again'} with: {go_on}")
        told = {"outcome": "interrupted", "run_dir": str(run_dir), "saved": saved, "unit": unit, "go_on": go_on}
        self.result({**told, "exit_code": INTERRUPTED})
        return SystemExit(INTERRUPTED)


def one_line(text: str) -> str:
    """Returns the text on one line, so that a name from elsewhere cannot pass for a line of ours."""
    return visible(text, layout="")
