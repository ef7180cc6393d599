"""Everything that is shown goes through one place, and leaves it without anything that a terminal would obey."""

import json
import re
from pathlib import Path

import pytest

from scripts.commands import generate as generate_module
from scripts.main import main
from scripts.terminal.console import RunDisplay, RunLines
from scripts.terminal.output import Output
from tests.places import ROOT
from trfmoe_core.config import Recipe

EVIL = "\x1b]0;owned\x07\x9b2J\u202egnp.exe\r"


def harmless(text: str) -> bool:
    return not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)


def test_lines_parts_results_and_errors(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(as_json=True)
    output.line(f"a {EVIL}\nb")
    output.part(EVIL)
    output.error(EVIL)
    output.result({"text": EVIL})
    shown = capsys.readouterr()
    assert harmless(shown.out) and harmless(shown.err) and "\nb" in shown.err
    assert json.loads(shown.out)["text"] == EVIL, "programs get what there is"


def test_names_and_reasons_in_a_runs_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with RunDisplay(Output(), RunLines()) as display:
        display.show({"event": "node_refused", "node": EVIL, "reason": f"x\nrun completed{EVIL}"})
        display.show({"event": "warning", "text": EVIL})
        display.show({"event": "run_finished", "outcome": EVIL, "reason": EVIL})
    shown = capsys.readouterr().out
    assert harmless(shown) and len(shown.splitlines()) == 3


@pytest.mark.parametrize("stream", [True, False])
def test_generated_text(
    stream: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Folder:
        path = tmp_path
        recipe = Recipe()

    monkeypatch.setattr("scripts.run.run_folders.run_folder", lambda run: Folder())
    monkeypatch.setattr("server.run_folder.models.choose_round", lambda *arguments: 1)
    monkeypatch.setattr("server.run_folder.models.better_start", lambda *arguments: "")
    monkeypatch.setattr("server.run_folder.models.load_model", lambda *arguments: (None, None))
    monkeypatch.setattr("server.run_folder.models.end_ids", lambda *arguments: {0})
    # An escape sequence may come in pieces.
    monkeypatch.setattr(generate_module, "draw_text", lambda *arguments: iter(["\x1b", "[2J", "two\nlines", EVIL]))
    with pytest.raises(SystemExit):
        main(["generate", str(tmp_path), "--prompt", f"{EVIL} 2³² \ufb01ne", *(["--stream"] if stream else [])])
    shown = capsys.readouterr().out
    assert "2³² fine" in shown, "a prompt has the characters of the training text"
    assert harmless(shown) and "two\nlines" in shown and "\\x1b[2J" in shown


def test_no_command_writes_past_that_place() -> None:
    """Programs of their own below `bench`, the guard's pipe, and what a shell reads show nothing to a person."""
    direct = re.compile(r"\bprint\(|sys\.std(out|err)\.write|typer\.echo|console\.print")
    places = {
        path.relative_to(ROOT).as_posix()
        for folder in ("scripts", "server", "clients", "strategies", "trfmoe_core")
        for path in (ROOT / folder).rglob("*.py")
        if direct.search(path.read_text(encoding="utf-8"))
    }
    assert {place for place in places if "/bench/" not in place} == {
        "scripts/terminal/output.py",
        "scripts/processes/proxies.py",  # commands for a shell
        "scripts/deploy/lifecycle/supernode.py",  # a program of its own, whose lines are the node's log
        "scripts/deploy/prompt_supernode.py",  # a program of its own, whose lines are the node's log
        "scripts/deploy/staying.py",  # the process of a node's trainer, whose lines are the node's log
        "scripts/terminal/streams.py",  # that standard output itself cannot be written
    }
