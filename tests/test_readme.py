"""Every `trfmoe` command that the README shows is one: its subcommand, arguments and options exist."""

import re
import shlex
from pathlib import Path

import click
import pytest
import typer

from scripts.main import app
from tests.places import ROOT

README = ROOT / "README.md"
SHOWN = sorted({m.strip() for m in re.findall(r"(?m)(?:^|`)(trfmoe [^`\n]*)", README.read_text(encoding="utf-8"))})


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs" / "threat-model.md", ROOT / "docs" / "privacy.md"]
PATH = re.compile(r"(?<![\w/.])(?:strategies|server|clients|scripts|trfmoe_core|tests|configs|docs)/[\w/.-]*\w")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_that_a_page_names_exists(page: Path) -> None:
    found = set(PATH.findall(page.read_text(encoding="utf-8")))
    assert found
    assert not [path for path in found if not (ROOT / path).exists()]


def test_the_readme_shows_commands() -> None:
    assert len(SHOWN) > 20


@pytest.mark.parametrize("shown", SHOWN)
def test_a_shown_command_is_understood(shown: str) -> None:
    words = shlex.split(shown.replace("[CONFIG|DIR]", ""), comments=True)[1:]
    command: click.Command = typer.main.get_command(app)
    while isinstance(command, click.Group) and words != ["--help"]:
        name, words = words[0], words[1:]
        command = command.commands[name]
    if words and words != ["--help"]:
        command.make_context(shown, words)
