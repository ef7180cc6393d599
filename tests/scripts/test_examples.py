"""The way in: what `trfmoe` alone says, an example on every help page, completion, and what the exit codes mean."""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import click
import pytest
import typer

from scripts.examples import EXAMPLES
from scripts.main import app, main
from tests.conftest import words
from tests.places import ROOT
from trfmoe_core.data.sample import owners
from trfmoe_core.errors import RunError

PROGRAM = "import sys; from scripts.main import main; main(sys.argv[1:])"


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ending:
        main(list(arguments))
    return int(ending.value.code or 0)


def commands(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        yield prefix + name, command
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")


def all_commands() -> dict[str, click.Command]:
    group = typer.main.get_command(app)
    assert isinstance(group, click.Group)
    return dict(commands(group))


def parsed(example: str) -> None:
    """Fails if a shown command is none: its subcommand, arguments or options do not exist."""
    words_left = shlex.split(example)
    assert words_left.pop(0) == "trfmoe"
    command: click.Command = typer.main.get_command(app)
    while isinstance(command, click.Group):
        command = command.commands[words_left.pop(0)]
    command.make_context(example, words_left)


def test_without_arguments_it_says_what_most_people_want_next(capfd: pytest.CaptureFixture[str]) -> None:
    assert call() == 0
    shown = capfd.readouterr().out
    steps = [line.split("  ")[1].replace("FOLDER", "papers") for line in shown.splitlines() if line.startswith("  ")]
    assert len(steps) == 3
    for step in steps:
        parsed(step)


def test_every_command_has_an_example_that_is_one() -> None:
    found = all_commands()
    assert set(EXAMPLES) == set(found)
    for name, command in found.items():
        assert command.epilog == f"Example: {EXAMPLES[name]}"
        assert EXAMPLES[name].startswith(f"trfmoe {name} ") or EXAMPLES[name] == f"trfmoe {name}"
        parsed(EXAMPLES[name])


def test_help_pages_show_it(capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("plan", "configs", "deploy check"):
        assert call(*name.split(), "--help") == 0
        assert f"Example: {EXAMPLES[name]}" in capfd.readouterr().out
    assert call("--help") == 0
    shown = " ".join(capfd.readouterr().out.split())
    assert "0 done, 1 the run failed, 2 wrong input, 3 this machine lacks something, 130 interrupted" in shown


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_completes_commands(shell: str) -> None:
    asked = {
        "_TRFMOE_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": "trfmoe con",
        "COMP_CWORD": "1",
        "_TYPER_COMPLETE_ARGS": "trfmoe con",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **asked}, capture_output=True, text=True, check=False)
    assert "configs" in done.stdout
    assert "demo" not in done.stdout


def test_code_1_the_run_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> NoReturn:
        raise RunError("training diverged at step 3")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(owners, "build_sample", fails)
    assert call("data", "sample", "x") == 1


def test_code_2_wrong_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("train", "no-such-recipe") == call("plan", "tiny", "--set", "model.layers=0") == call("plan", "-x") == 2


def test_code_3_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> NoReturn:
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr(owners, "build_sample", full)
    assert call("data", "sample", "x") == 3


@pytest.mark.slow
def test_code_130_interrupted_and_saved(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(words(0, 4000))
    small = {"layers": 1, "width": 32, "heads": 2, "expert_width": 16, "context": 32}
    settings = [
        *(f"model.{key}={value}" for key, value in small.items()),
        "training.steps=100000",
        "local.evaluate_every=5",
    ]
    given = [part for one in settings for part in ("--set", one)]
    command = [sys.executable, "-c", PROGRAM, "train", str(ROOT / "configs" / "shakespeare.yaml"), "--pdfs", "text.txt"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [*command, *given], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout
        for line in process.stdout:
            if re.match(r"step +[1-9]\d*/", line):
                process.send_signal(signal.SIGINT)
                break
        told = process.stdout.read()
        assert process.wait(timeout=120) == 130, told
    assert "is saved" in told
    assert "go on after step" in told and "error" not in told
    assert list((tmp_path / "runs").glob("*/checkpoints/round-*"))
