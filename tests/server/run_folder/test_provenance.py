"""A run that goes on: what must not change ends it, what may change is a warning, and the journal is read once."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import server.app
import server.run_folder.journal
import server.run_folder.provenance
from server.run_folder.facts import RunFacts
from server.run_folder.folder import RunFolder
from server.run_folder.journal import Journal, read_events
from server.run_folder.recorder import best_round, committed_rounds
from server.run_folder.verify import verify_run
from tests.federation import grid_of, of_kind, run_recipe
from trfmoe_core.config import Recipe
from trfmoe_core.errors import RunFolderError

ROUNDS = {"num_rounds": 2, "local_steps": 1, "nodes_deadline_s": 1.0, "reply_deadline_s": 60.0}


class Parsed:
    """Counts the lines of journals that are parsed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lines = 0
        real = server.run_folder.journal.decode_entry

        def counted(line: bytes, number: int, where: object) -> server.run_folder.journal.Event:
            self.lines += 1
            return real(line, number, where)

        monkeypatch.setattr(server.run_folder.journal, "decode_entry", counted)


def test_a_run_that_goes_on_says_what_changed_and_refuses_what_must_not(
    tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = Parsed(monkeypatch)
    folder, events = run_recipe(tiny_recipe(rounds=ROUNDS))
    # By the writer at the start, by the facts, and by the report at the end: never once a round.
    assert parsed.lines <= 3 * len(events)
    assert of_kind(events, "warning") == []
    started = of_kind(events, "run_started")[0]
    assert started["tokenizer_fingerprint"]
    assert started["recipe_hash"] == folder.recipe_digest() == (folder.path / "recipe.sha256").read_text().strip()

    monkeypatch.setattr(server.run_folder.provenance, "code_fingerprint", lambda: "f" * 64)
    monkeypatch.setattr(server.app.flwr, "__version__", "9.9")
    server.app.run(grid_of(folder), folder)
    texts = [event["text"] for event in of_kind(read_events(folder.events_path), "warning")]
    assert len(texts) == 2
    assert f"other code than before: {started['code_fingerprint'][:12]} then, ffffffffffff now" in texts[0]
    assert f"another version of flwr: {started['versions']['flwr']} then, 9.9 now" in texts[1]
    assert verify_run(folder).problems == []

    tokenizer = folder.tokenizer_path / "tokenizer_config.json"
    raw = json.loads(tokenizer.read_text())
    tokenizer.write_text(json.dumps(raw, indent=7))
    assert [problem[:17] for problem in verify_run(folder).problems] == ["tokenizer's files"]


def test_another_tokenizer_or_other_imported_weights_end_a_run_that_goes_on() -> None:
    now = {"tokenizer_fingerprint": "a", "imported_weights": "b", "witness_salt": None}
    folder = RunFolder(Path("x"), Recipe())
    server.run_folder.provenance.check_resumed(folder, {}, now)
    server.run_folder.provenance.check_resumed(folder, {"versions": {}}, now)
    for name in now:
        with pytest.raises(RunFolderError, match="began with"):
            server.run_folder.provenance.check_resumed(folder, {**now, name: "other"}, now)


@pytest.mark.parametrize("rounds", [10, 40])
def test_every_line_is_parsed_once_however_many_rounds_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounds: int
) -> None:
    folder = RunFolder.create(tmp_path, Recipe())
    journal, parsed = Journal(folder.events_path), Parsed(monkeypatch)
    for number in range(1, rounds + 1):
        journal.append("evaluated", round=number - 1, bits_per_byte=1.0)
        journal.append("round_committed", round=number)
        assert committed_rounds(folder) == list(range(1, number + 1))
        best_round(folder)
    assert parsed.lines == 2 * rounds


def test_the_facts_of_a_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "events.jsonl")
    facts = RunFacts(journal.path)
    assert (facts.follow().first, facts.ended, facts.entries) == ({}, False, 0)
    journal.append("run_started", run_id="a")
    journal.append("run_finished", outcome="failed")
    assert facts.follow().ended
    journal.append("run_started", run_id="a")
    journal.append("evaluated", round=0, bits_per_byte=float("nan"))
    assert not facts.follow().ended
    assert (facts.first["seq"], facts.started["seq"], facts.evaluated[0]["bits_per_byte"]) == (0, 2, None)
    journal.append("round_committed", number=1)
    with pytest.raises(RunFolderError, match="entry 4 lacks what its kind has"):
        facts.follow()
