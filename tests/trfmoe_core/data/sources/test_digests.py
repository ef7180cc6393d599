import hashlib
import os
from pathlib import Path

import pytest

from trfmoe_core.data.documents.opening import open_plain, stamp_of
from trfmoe_core.data.sources import digests as module
from trfmoe_core.data.sources.digests import SETTLED_NS, DigestCache


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files that are read."""
    names: list[str] = []

    def note(path: Path) -> object:
        names.append(path.name)
        return open_plain(path)

    monkeypatch.setattr(module, "open_plain", note)
    return names


def later(file: Path) -> int:
    """A time by which the file has settled."""
    status = file.stat()
    return max(status.st_mtime_ns, status.st_ctime_ns) + SETTLED_NS + 1


def digest(memory: Path, file: Path, now_ns: int) -> str:
    digests = DigestCache(memory, lambda: now_ns)
    found, stamp, _ = digests.digest(file)
    digests.save()
    assert found == hashlib.sha256(file.read_bytes()).hexdigest()
    assert stamp == stamp_of(file)
    return found


def test_an_untouched_file_is_read_once(tmp_path: Path, opened: list[str]) -> None:
    file, memory = tmp_path / os.fsdecode(b"odd\n\xff.txt"), tmp_path / "memory.json"
    file.write_text("one")
    for _ in range(3):
        digest(memory, file, later(file))
    assert len(opened) == 1


def test_contents_replaced_under_the_same_size_and_time_are_noticed(tmp_path: Path, opened: list[str]) -> None:
    file, memory = tmp_path / "a.txt", tmp_path / "memory.json"
    file.write_text("one")
    before = file.stat()
    digest(memory, file, later(file))
    file.write_text("two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    digest(memory, file, later(file))
    assert len(opened) == 2


def test_a_file_just_written_is_not_remembered(tmp_path: Path, opened: list[str]) -> None:
    file, memory = tmp_path / "a.txt", tmp_path / "memory.json"
    file.write_text("one")
    digest(memory, file, later(file) - 2)
    digest(memory, file, later(file))
    assert len(opened) == 2
    digest(memory, file, later(file))
    assert len(opened) == 2


@pytest.mark.parametrize("broken", ["", "[1]", '{"a": 3}', "{"])
def test_a_broken_memory_is_forgotten(tmp_path: Path, opened: list[str], broken: str) -> None:
    file, memory = tmp_path / "a.txt", tmp_path / "memory.json"
    file.write_text("one")
    memory.write_text(broken)
    digest(memory, file, later(file))
    digest(memory, file, later(file))
    assert len(opened) == 1
