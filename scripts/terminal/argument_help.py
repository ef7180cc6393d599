"""Lets `--help` show the help text of arguments.

click 8.5 gives arguments a help text of their own and so overwrites the one that typer 0.20 has set (Flower allows no
later typer).
"""

from typing import Any

import typer.main
from typer.core import TyperArgument


class _Argument(TyperArgument):
    """An argument that keeps its help text."""

    def __init__(self, *, help: str | None = None, **settings: Any) -> None:
        super().__init__(help=help, **settings)
        self.help = help


def keep_argument_help() -> None:
    """Makes typer build arguments that keep their help text."""
    typer.main.TyperArgument = _Argument  # type: ignore[attr-defined]
