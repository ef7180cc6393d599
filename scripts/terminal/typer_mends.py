"""Mends two places where typer 0.20 and click 8.5 do the same thing twice. Flower allows no later typer."""

from typing import Any

import typer.main
from typer.core import TyperArgument


class _Argument(TyperArgument):
    """An argument that keeps its help text: click gives arguments one of its own, and overwrites typer's."""

    def __init__(self, *, help: str | None = None, **settings: Any) -> None:
        super().__init__(help=help, **settings)
        self.help = help


def keep_argument_help() -> None:
    """Makes typer build arguments that keep their help text."""
    typer.main.TyperArgument = _Argument  # type: ignore[attr-defined]


def suggest_once(app: typer.Typer) -> None:
    """Makes the answer to an unknown command say `Did you mean` once: click says it, so typer need not."""
    app.suggest_commands = False
    for group in app.registered_groups:
        if group.typer_instance is not None:
            suggest_once(group.typer_instance)
