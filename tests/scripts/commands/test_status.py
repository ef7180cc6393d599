"""`trfmoe status` tells a run's state from a copy of its folder, and follows it."""

import json
import threading
import time
from pathlib import Path

import pytest

from scripts.main import main
from scripts.terminal.run_view import duration, node_states, time_left
from server.run_folder.folder import RunFolder
from server.run_folder.history import RunHistory
from tests.scripts.journal import events, write_journal
from trfmoe_core.config import Recipe


def folder(root: Path, rounds: int = 3, finished: bool = True) -> Path:
    path = RunFolder.create(root, Recipe(name="demo")).path
    write_journal(path, events(rounds, finished=finished))
    return path


def status(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, dict[str, object]]:
    with pytest.raises(SystemExit) as ending:
        main(["status", *arguments, "--json"])
    assert ending.value.code == 0
    shown = capsys.readouterr()
    return shown.err, json.loads(shown.out)


def test_a_finished_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines, payload = status(capsys, str(folder(tmp_path)))
    assert "demo-001: round 3 of 3, completed" in lines and "2.0100 bits per byte after round 3" in lines
    assert "outvoted" in lines and "33 %" in lines
    assert payload["outcome"] == "completed" and payload["done"] == payload["planned"] == 3
    assert payload["nodes"] == {"alice": "answered", "bob": "answered", "carol": "outvoted on 2 experts + trunk"}


def test_an_unfinished_run_says_what_it_waits_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder(tmp_path, rounds=3, finished=False)
    made = [
        event
        for event in events(rounds=3, finished=False)
        if event.get("round") != 3 or event["event"] == "round_planned"
    ]
    made.append(
        {"event": "node_reply", "round": 3, "node": "bob", "status": "accepted", "reason": None, "time": 1100.0}
    )
    write_journal(path, [{**event, "seq": number} for number, event in enumerate(made)])
    lines, payload = status(capsys, str(path))
    assert "round 2 of 3, interrupted" in lines and "about 2 s left" in lines
    assert "no process of this machine works on this folder, and nothing was written for" in lines
    assert payload["outcome"] == "interrupted"
    stopped = "no answer before the run was interrupted"
    assert payload["nodes"] == {"alice": stopped, "bob": "answered", "carol": stopped}
    assert "training" not in lines
    with RunFolder.open(path).lock():
        assert status(capsys, str(path))[1]["nodes"] == {"alice": "training", "bob": "answered", "carol": "training"}
    made.append({"event": "run_finished", "outcome": "stopped", "reason": "the operator stopped it", "time": 1101.0})
    write_journal(path, [{**event, "seq": number} for number, event in enumerate(made)])
    ended = "no answer before the run ended"
    assert status(capsys, str(path))[1]["nodes"] == {"alice": ended, "bob": "answered", "carol": ended}


def test_the_lock_tells_a_running_run_from_an_interrupted_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder(tmp_path, finished=False)
    with RunFolder.open(path).lock():
        lines, payload = status(capsys, str(path))
    assert "running" in lines and "interrupted" not in lines and payload["outcome"] == "running"
    assert "its process is alive, and has written nothing for" in lines
    new = RunFolder.create(tmp_path, Recipe(name="new")).path
    lines, payload = status(capsys, str(new))
    assert "new-001: not begun" in lines and payload["outcome"] == "not begun"


def test_it_follows_a_run_to_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder(tmp_path, finished=False)
    later = events()

    def go_on() -> None:
        time.sleep(0.3)
        with (path / "events.jsonl").open("a") as file:
            for event in later[len(events(finished=False)) :]:
                file.write(json.dumps(event) + "\n")

    writer = threading.Thread(target=go_on)
    writer.start()
    lines, payload = status(capsys, str(path), "--follow")
    writer.join()
    assert "run completed" in lines and payload["outcome"] == "completed"


def test_time_left_and_durations() -> None:
    assert time_left(RunHistory(events(rounds=3))) == 0
    assert time_left(RunHistory([])) is None
    assert [duration(s) for s in (5, 89, 120, 7500)] == ["5 s", "89 s", "2 min", "2 h 5 min"]
    assert node_states(RunHistory([]), working=True) == {}
