"""The journal: chained, whole after a crash, readable while it grows."""

import hashlib
import json
import threading
from pathlib import Path

import pytest

from server.run_folder.journal import GENESIS, Journal, follow_events, read_events
from trfmoe_core.errors import RunFolderError


def test_every_line_carries_the_hash_of_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    Journal(path).append("a", value=1)
    Journal(path).append("b", text="zwei ✓")
    lines = path.read_bytes().splitlines()
    assert [json.loads(line)["prev"] for line in lines] == [GENESIS, hashlib.sha256(lines[0]).hexdigest()]
    assert [event["seq"] for event in read_events(path)] == [0, 1]


@pytest.mark.parametrize("torn", [b'{"seq": 1', b'{"seq": 1\n', b"\x00\x00"])
def test_a_torn_last_line_is_cut(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "events.jsonl"
    Journal(path).append("a")
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert [event["event"] for event in read_events(path)] == ["a"]
    Journal(path).append("b")
    assert path.read_bytes().startswith(whole)
    assert [event["seq"] for event in read_events(path)] == [0, 1]


def test_following_sees_every_event_once(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    done = threading.Event()

    def write() -> None:
        journal = Journal(path)
        for number in range(50):
            journal.append("n", number=number)
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    seen = [event["number"] for event in follow_events(path, done.is_set, poll_s=0.001)]
    thread.join()
    assert seen == list(range(50))


def test_a_journal_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="cannot be opened"):
        Journal(tmp_path / "missing" / "events.jsonl")
