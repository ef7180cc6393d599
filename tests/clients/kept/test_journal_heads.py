"""Nodes note the head of the journal that comes with each request; a journal that was rewritten does not fit it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from clients.kept.journal_heads import HEADS_FILE, note_head
from clients.kept.states import _mark
from scripts.main import main
from server.run_folder.folder import RunFolder
from server.run_folder.journal_entries import GENESIS, line_hash
from strategies.exchange.messages import TrainRequest
from tests.federation import of_kind, run_recipe
from trfmoe_core.config import Recipe


def request(**changes: object) -> TrainRequest:
    fields = {"run_id": "r", "round": 1, "epoch": 1, "base_digest": "0" * 64, "steps": 1, "held": [], "recipe": {}}
    return TrainRequest.model_validate({**fields, "index": "", **changes})


def test_a_run_leaves_notes_that_fit_and_a_rewritten_journal_does_not(
    tiny_recipe: Callable[..., Recipe], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rounds = {"num_rounds": 2, "local_steps": 1, "nodes_deadline_s": 1.0, "reply_deadline_s": 60.0}
    folder, events = run_recipe(tiny_recipe(rounds=rounds))
    run_id = of_kind(events, "run_started")[0]["run_id"]
    (ada, *others) = sorted((tmp_path / "state" / run_id).glob(f"*/{HEADS_FILE}"))
    assert ada.stat().st_mode & 0o777 == 0o600
    notes = [json.loads(line) for line in ada.read_text().splitlines()]
    assert [note["round"] for note in notes] == [1, 2, 2]
    for other in others:
        theirs = [json.loads(line) for line in other.read_text().splitlines()]
        assert [(note["entries"], note["head"]) for note in theirs] == [(n["entries"], n["head"]) for n in notes]

    def verify(*files: Path) -> int:
        options = [part for file in files for part in ("--heads", str(file))]
        with pytest.raises(SystemExit) as ended:
            main(["verify", str(folder.path), *options])
        return int(str(ended.value.code))

    assert verify(ada, *others) == 0
    assert "3 noted heads fit" in capsys.readouterr().out
    ada.write_bytes(ada.read_bytes()[:-9])
    assert verify(ada) == 0
    rewrite(folder)
    assert verify() == 0
    assert verify(others[0]) == 1
    assert "3 of 3 noted heads are not in this journal, the first in round 1" in capsys.readouterr().out
    foreign = tmp_path / "foreign.jsonl"
    foreign.write_text(json.dumps({**notes[0], "run_id": "other"}) + "\n")
    assert verify(foreign) == 1
    for wrong in ("", "rubbish\n", '{"run_id": 1}\n', "[]\n"):
        foreign.write_text(wrong)
        assert verify(foreign) == 2
    assert verify(tmp_path / "missing") == 2


def rewrite(folder: RunFolder) -> None:
    """Writes the journal anew, chained as it must be, with other times."""
    lines, prev = [], GENESIS
    for line in folder.events_path.read_bytes().splitlines():
        event = json.loads(line)
        lines.append(json.dumps({**event, "time": event["time"] + 1, "prev": prev}, separators=(",", ":")).encode())
        prev = line_hash(lines[-1])
    folder.events_path.write_bytes(b"".join(line + b"\n" for line in lines))


def test_the_head_is_no_part_of_what_makes_a_request_the_same() -> None:
    one, other = request(), request(journal_entries=7, journal_head="a" * 64)
    assert _mark(one, Recipe()) == _mark(other, Recipe())


def test_notes_that_cannot_be_written_do_not_stop_the_round(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    note_head(tmp_path / "file" / "below", request(journal_entries=1, journal_head="a" * 64))
    assert "cannot be noted" in caplog.text
    note_head(tmp_path / "none", request())
    assert not (tmp_path / "none").exists()
