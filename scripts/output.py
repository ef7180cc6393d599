"""Where a command writes: lines for people, and with `--json` one object for programs as the last line."""

import json
import sys
from typing import Any

from rich.console import Console


class _Console(Console):
    """Writes for people. That nobody reads any more is for the command to know, as everywhere else."""

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
        self.console.print(text, style=style)

    def part(self, text: str) -> None:
        """Writes part of a line for people, at once."""
        self.console.print(text, end="")
        self.console.file.flush()

    def result(self, payload: dict[str, Any]) -> None:
        """Writes the outcome for programs, if it was asked for."""
        if self.as_json:
            sys.stdout.write(json.dumps(payload, default=str) + "\n")
            sys.stdout.flush()
