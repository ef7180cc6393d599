"""The outcome is what the journal and Flower both say, and a round run again counts once."""

from pathlib import Path

from scripts.run.outcome import judge
from server.run_folder.history import RunHistory
from tests.scripts.journal import events


def test_payload_of_a_completed_run(tmp_path: Path) -> None:
    payload = judge(RunHistory(events()), tmp_path).payload()
    assert payload["outcome"] == "completed"
    assert payload["exit_code"] == 0
    assert payload["rounds"] == 3
    assert [round(value, 2) for value in payload["bits_per_byte"]] == [8.01, 6.01, 4.01, 2.01]
    assert payload["outvoted"] == {"alice": 0, "bob": 0, "carol": 2}
    assert payload["outvoted_rounds"] == {"carol": [2, 3]}
    assert payload["digest"] == "digest-3"


def test_a_run_is_complete_only_when_both_say_so(tmp_path: Path) -> None:
    whole, cut = RunHistory(events()), RunHistory(events(finished=False))
    lost = judge(whole, tmp_path, "lost", "the server app was killed")
    assert (lost.exit_code, lost.reason) == (1, "the server app was killed")
    assert judge(cut, tmp_path, "finished:completed", "N/A").exit_code == 1
    assert "finished:completed" in judge(cut, tmp_path, "finished:completed", "N/A").reason


def test_a_run_that_was_stopped_at_once_has_not_failed(tmp_path: Path) -> None:
    outcome = judge(RunHistory(events(finished=False)), tmp_path, "finished:stopped", "N/A")
    assert (outcome.stopped, outcome.payload()["outcome"], outcome.exit_code) == (True, "stopped", 1)
    assert outcome.reason == "the operator stopped it at once; what came after round 3 is lost"
    assert judge(RunHistory(events()), tmp_path, "finished:stopped", "").payload()["outcome"] == "failed"


def test_a_resumed_round_counts_once(tmp_path: Path) -> None:
    made = events(rounds=2, finished=False)
    again = RunHistory([*made, {"event": "run_finished", "outcome": "failed", "reason": "x"}, *events(rounds=2)])
    payload = judge(again, tmp_path).payload()
    assert payload["rounds"] == 2
    assert payload["outvoted"]["carol"] == 1
    assert payload["outcome"] == "completed"


def test_a_failed_evaluation_does_not_hide_an_accepted_training() -> None:
    history = RunHistory(events())
    history.feed({"event": "node_reply", "round": 3, "node": "carol", "status": "missing", "reason": "gone"})
    assert history.drill_rounds() == {"carol": [2, 3]}


def test_a_missing_evaluation_is_none() -> None:
    history = RunHistory([event for event in events() if (event["event"], event.get("round")) != ("evaluated", 1)])
    assert history.bits_per_byte[1] is None
    assert history.best_round == 3
