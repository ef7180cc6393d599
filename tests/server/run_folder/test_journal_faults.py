"""An append that fails leaves no trace, and what a crash or a stranger leaves in the file is mended or named."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from server.run_folder.journal import Journal, JournalReader, follow_events, read_events
from server.run_folder.journal_entries import MAX_ENTRY, MAX_TEXT, encode_entry
from tests.places import ROOT
from trfmoe_core.errors import RunFolderError


class Disk:
    """Stands before os.write, os.fsync and os.ftruncate, and lets the named calls fail; the first call is number 0."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *failing: tuple[str, int], error: BaseException) -> None:
        self.failing, self.error = set(failing), error
        self.counts = {"write": 0, "fsync": 0, "ftruncate": 0}
        for name in self.counts:
            monkeypatch.setattr(os, name, self._call(name, getattr(os, name)))

    def _call(self, name: str, real: Callable[..., int]) -> Callable[..., int]:
        def call(descriptor: int, *arguments: object) -> int:
            number = self.counts[name]
            self.counts[name] += 1
            if (name, number) in self.failing:
                if name == "write":
                    data = bytes(arguments[0])  # type: ignore[arg-type]
                    real(descriptor, data[: len(data) // 2])
                raise self.error
            return real(descriptor, *arguments)

        return call


@pytest.mark.parametrize("step", [("write", 0), ("fsync", 0), ("write", 1)])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_append_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: tuple[str, int], error: BaseException
) -> None:
    journal = Journal(tmp_path / "events.jsonl")
    journal.append("a")
    before = journal.path.read_bytes()
    with monkeypatch.context() as patch:
        Disk(patch, step, error=error)
        with pytest.raises((RunFolderError, KeyboardInterrupt)):
            journal.append("lost")
    assert journal.path.read_bytes() == before
    journal.append("b")
    journal.close()
    Journal(journal.path).append("c")
    assert [event["event"] for event in JournalReader(journal.path, chained=True).read()] == ["a", "b", "c"]


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:7]))
    Journal(tmp_path / "events.jsonl").append("a", text="x" * 100)
    assert read_events(tmp_path / "events.jsonl")[0]["text"] == "x" * 100


@pytest.mark.parametrize("second", [("ftruncate", 0), ("fsync", 1)])
def test_what_cannot_be_taken_back_ends_all_writing_until_the_journal_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: tuple[str, int]
) -> None:
    journal = Journal(tmp_path / "events.jsonl")
    journal.append("a")
    with monkeypatch.context() as patch:
        Disk(patch, ("fsync", 0), second, error=OSError(5, "Input/output error"))
        with pytest.raises(RunFolderError, match="Input/output"):
            journal.append("lost")
    size = journal.path.stat().st_size
    for _ in range(2):
        with pytest.raises(RunFolderError, match="could not be taken back"):
            journal.append("b")
    assert journal.path.stat().st_size == size
    journal.close()
    Journal(journal.path).append("c")
    kinds = [event["event"] for event in JournalReader(journal.path, chained=True).read()]
    assert kinds in (["a", "c"], ["a", "lost", "c"])


def test_two_readers_never_see_what_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, done = tmp_path / "events.jsonl", threading.Event()
    seen: list[list[int]] = [[], []]

    def read(numbers: list[int]) -> None:
        numbers += [event["number"] for event in follow_events(path, done.is_set, poll_s=0.0005)]

    journal = Journal(path)
    readers = [threading.Thread(target=read, args=(numbers,)) for numbers in seen]
    for reader in readers:
        reader.start()
    Disk(monkeypatch, *[("fsync", number) for number in range(2, 120, 3)], error=OSError(28, "full"))
    written = []
    for number in range(60):
        try:
            journal.append("n", number=number, text="x" * (number % 7) * 500)
            written.append(number)
        except RunFolderError:
            pass
    done.set()
    for reader in readers:
        reader.join()
    assert len(written) < 60
    assert seen == [written, written]


def test_a_full_disk_at_any_byte_leaves_a_whole_journal(tmp_path: Path) -> None:
    """RLIMIT_FSIZE refuses real writes: what was appended before stays, and the next process goes on."""
    path = tmp_path / "events.jsonl"
    code = (
        "import resource, sys; from pathlib import Path; from server.run_folder.journal import Journal\n"
        "from trfmoe_core.errors import RunFolderError\n"
        "journal = Journal(Path(sys.argv[1])); start = journal.head.length\n"
        "for extra in range(1, 400, 3):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (start + extra, resource.RLIM_INFINITY))\n"
        "    try: journal.append('big', text='x' * 100)\n"
        "    except RunFolderError as error: assert 'free space' in str(error), error; continue\n"
        "    print(extra); break\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1)); journal.append('after')\n"
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code, str(path)], check=True, cwd=ROOT, capture_output=True)
    kinds = [event["event"] for event in JournalReader(path, chained=True).read()]
    assert kinds == ["big", "after", "big", "after"]


def test_a_line_that_lacks_only_its_end_is_completed(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    journal = Journal(path)
    journal.append("a")
    journal.append("b")
    journal.close()
    path.write_bytes(path.read_bytes()[:-1])
    assert [event["event"] for event in read_events(path)] == ["a"]
    Journal(path).append("c")
    assert [event["event"] for event in JournalReader(path, chained=True).read()] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda lines: [lines[0], lines[1][:20] + b"\n", *lines[2:]], "entry 1 is no JSON"),
        (lambda lines: [lines[0], b"\x00" * 30 + b"\n", *lines[2:]], "entry 1 is no JSON"),
        (lambda lines: [lines[0], b"\n", *lines[1:]], "entry 1 is no JSON"),
        (lambda lines: [lines[0], b"42\n", *lines[2:]], "entry 1 is no event"),
        (lambda lines: [lines[0], b"[" * 100_000 + b"\n", *lines[2:]], "entry 1 is no JSON"),
        (lambda lines: [lines[0], b'{"event":"x","n":' + b"9" * 5000 + b"}\n", *lines[2:]], "entry 1 is no JSON"),
        (lambda lines: [line[:-1] + b"\r\n" for line in lines], "entry 0 ends in a carriage return"),
        (lambda lines: [b"\xef\xbb\xbf" + lines[0], *lines[1:]], "entry 0 begins with a byte order mark"),
        (lambda lines: [b"\xff\xfe" + b"".join(lines).decode().encode("utf-16-le")], "entry 0 is no JSON"),
        (lambda lines: [lines[0], *lines[2:]], "entry 1 has the number 2"),
        (lambda lines: [lines[0].replace(b'"a"', b'"z"'), *lines[1:]], "entry 1 does not follow"),
    ],
)
def test_damage_before_the_end_is_an_error_and_cuts_nothing(
    tmp_path: Path, change: Callable[[list[bytes]], list[bytes]], named: str
) -> None:
    path = tmp_path / "events.jsonl"
    journal = Journal(path)
    for kind in "abcd":
        journal.append(kind)
    journal.close()
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    damaged = path.read_bytes()
    with pytest.raises(RunFolderError, match=named):
        Journal(path)
    assert path.read_bytes() == damaged


def test_a_line_of_fifty_megabytes_is_read_and_an_endless_one_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"event":"x","text":"' + b"y" * (50 << 20) + b'"}\n')
    assert len(read_events(path)[0]["text"]) == 50 << 20
    monkeypatch.setattr("server.run_folder.journal.MAX_LINE", 1 << 20)
    with pytest.raises(RunFolderError, match="entry 0 is longer than 1048576 bytes"):
        read_events(path)


def test_what_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "target").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("folder", "fifo", "link", "dangling"):
        with pytest.raises(RunFolderError, match=name):
            read_events(tmp_path / name)
        with pytest.raises(RunFolderError, match=name):
            Journal(tmp_path / name)
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "empty").touch()
    assert read_events(tmp_path / "empty") == []


def test_a_journal_that_somebody_else_changed_is_not_written_on(tmp_path: Path) -> None:
    journal, other = (Journal(tmp_path / "events.jsonl") for _ in range(2))
    other.append("a")
    with pytest.raises(RunFolderError, match="somebody else"):
        journal.append("b")
    other.append("c")
    other.path.unlink()
    with pytest.raises(RunFolderError, match="was removed"):
        other.append("d")


def test_a_journal_that_becomes_shorter_under_its_reader_is_an_error(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "events.jsonl")
    reader = JournalReader(journal.path)
    journal.append("a")
    list(reader.read())
    journal.path.write_bytes(b"")
    with pytest.raises(RunFolderError, match="was cut behind entry 0"):
        list(reader.read())


def test_values_that_json_does_not_have(tmp_path: Path) -> None:
    deep: list[object] = []
    deep.append(deep)
    path = tmp_path / "events.jsonl"
    Journal(path).append(
        "odd",
        numbers=[float("nan"), float("inf"), -float("inf"), 10**400, 0.5],
        text="a\ud800b\ud83d\ude00",
        keys={1: "one", None: 2, (3, 4): 5, "\udfff": 6, float("nan"): 7},
        path=Path("x"),
        deep=deep,
        long="y" * (MAX_TEXT + 5),
        several={"a"},
    )
    (line,) = path.read_bytes().splitlines()

    def constant(name: str) -> None:
        raise AssertionError(name)

    event = json.loads(line, parse_constant=constant)
    line.decode().encode("utf-8")
    json.dumps(event, ensure_ascii=False).encode("utf-8")  # no lone surrogate anywhere
    assert event["numbers"] == [None, None, None, "an integer of 1329 bits", 0.5]
    assert event["text"] == "a\ufffdb\U0001f600"
    assert event["keys"] == {"1": "one", "None": 2, "(3, 4)": 5, "\ufffd": 6, "nan": 7}
    assert len(event["long"]) < MAX_TEXT + 100
    assert (event["path"], event["several"]) == ("x", ["a"])


def test_an_entry_is_bounded_and_keeps_its_small_fields() -> None:
    many = ["z" * 1000] * (MAX_ENTRY // 1000)
    event, line = encode_entry(0, 0.0, "huge", {"round": 3, "blocks": many, "more": many}, "0" * 64)
    assert len(line) < MAX_ENTRY + 1000
    assert event["round"] == 3
    assert str(event["blocks"]).startswith("left out:") or str(event["more"]).startswith("left out:")
    with pytest.raises(ValueError, match="seq"):
        encode_entry(0, 0.0, "k", {"seq": 1}, "0" * 64)
