"""A node that is ten times slower than the others, in processes of their own: rounds go on without it."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.run_folder.journal import read_events
from tests.federation import of_kind
from tests.test_end_to_end import TINY, environment, workplace  # noqa: F401  Fixtures.

DELAY_S = 90.0
PATIENCE_S = 600.0


def paces(events: list[dict[str, Any]], number: int) -> tuple[float, float]:
    """Returns the seconds until the last reply that counts, and until the commit, of one round."""
    start = next(event["time"] for event in of_kind(events, "round_planned") if event["round"] == number)
    replies = [e["time"] for e in of_kind(events, "node_reply") if e["round"] == number and e["status"] == "accepted"]
    end = next(event["time"] for event in of_kind(events, "round_committed") if event["round"] == number)
    return max(replies) - start, end - start


@pytest.mark.slow
@pytest.mark.timeout(700)
def test_a_slow_node_holds_no_round_and_its_late_reply_is_recorded(
    workplace: Path,  # noqa: F811
    environment: dict[str, str],  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    raw = yaml.safe_load(TINY.read_text())
    raw["nodes"][2]["drill"] = {"attack": "slow", "delay_s": DELAY_S}
    raw["rounds"] |= {"num_rounds": 400, "wait": "quorum", "patience": 1.5}
    raw |= {"name": "quorum", "run_root": str(tmp_path), "reputation": {"strikes": 400}}
    recipe = tmp_path / "quorum.yaml"
    recipe.write_text(yaml.safe_dump(raw))
    journal = tmp_path / "quorum-001" / "events.jsonl"

    def late() -> list[dict[str, Any]]:
        return [event for event in of_kind(read_events(journal), "node_reply") if event["status"] == "late"]

    argv = [sys.executable, "-m", "scripts", "deploy", "local", str(recipe)]
    process = subprocess.Popen(argv, cwd=workplace, env=environment, stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + PATIENCE_S
        while not journal.exists() or not late():
            assert process.poll() is None
            assert time.monotonic() < end, read_events(journal) if journal.exists() else "no journal"
            time.sleep(1)
        seen = max(event["round"] for event in of_kind(read_events(journal), "round_committed"))
        while max(event["round"] for event in of_kind(read_events(journal), "round_committed")) <= seen:
            assert time.monotonic() < end
            time.sleep(1)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
    events = read_events(journal)
    numbers = [event["round"] for event in of_kind(events, "round_committed")]
    measured = {number: paces(events, number) for number in numbers}
    with capsys.disabled():
        told = {number: [round(value, 2) for value in pair] for number, pair in measured.items()}
        sys.stdout.write(f"\nround: [fast nodes s, round s] {json.dumps(told)}\n")
    (arrived,) = late()[:1]
    assert (arrived["node"], arrived["round"]) == ("carol", 1)
    assert "an answer to round 1" in arrived["reason"]
    first = [event for event in of_kind(events, "node_reply") if (event["node"], event["round"]) == ("carol", 1)]
    assert first[0]["status"] == "missing"
    assert "when the others were enough" in first[0]["reason"]
    for event in of_kind(events, "verdicts"):
        if event["round"] < seen:
            # Two that do not agree on a block leave it as it is.
            assert {tuple(verdict["accepted"]) for verdict in event["verdicts"]} <= {("alice", "bob"), ()}
            assert {tuple(verdict["missing"]) for verdict in event["verdicts"]} == {("carol",)}
    committed = next(event for event in of_kind(events, "round_committed") if event["round"] == 1)
    assert committed["seq"] < arrived["seq"]
