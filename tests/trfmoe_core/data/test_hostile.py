import json
import os
import random
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from tests.hostile_files import page, pdf, write_hostile
from tests.places import ROOT
from trfmoe_core.config import DataConfig
from trfmoe_core.data.prepare.corpus_cache import prepare_corpus
from trfmoe_core.data.tokenizers.byte import ByteTokenizer

CONFIG = DataConfig(file_timeout_s=10, file_memory_mb=1024)
EXPECTED = {
    "cyclic-pages.pdf": {"broken"},
    "bomb.pdf": {"no-text", "too-large", "timeout", "broken"},
    "empty-pages.pdf": {"no-text"},
    "half.pdf": {"broken", "ok"},
    "locked.pdf": {"needs-password"},
    "fake.pdf": {"not-a-pdf"},
    "empty.pdf": {"empty"},
    "pipe.pdf": {"unsupported"},
    "outside.txt": {"unsupported"},
    "dangling.txt": {"unreadable"},
    "bomb.txt.gz": {"partial"},
    "half.jsonl.gz": {"partial"},
    "fake.jsonl.zst": {"broken"},
    "one-line.jsonl": {"broken"},
    "fake.parquet": {"broken"},
    "long-value.parquet": {"too-large"},
    "spoilt.parquet": {"partial"},
    "latin-1.txt": {"unsupported"},
    "UPPER.PDF": {"ok"},
    "zeros.txt": {"unsupported"},
}


def walk(folder: Path) -> int:
    """Returns how many things below a folder are no folders."""
    return sum(
        len(names) + sum(Path(at, name).is_symlink() for name in folders) for at, folders, names in os.walk(folder)
    )


def test_a_hostile_folder_is_read_to_the_end_and_every_file_is_accounted_for(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    traps = write_hostile(folder, 120, bomb_bytes=100 << 20, empty_pages=300)
    assert traps > 45
    corpus = prepare_corpus([str(folder)], CONFIG, ByteTokenizer(), tmp_path / "cache")
    assert len({report.path for report in corpus.files}) == len(corpus.files) == walk(folder) == 120
    for report in corpus.files:
        assert report.path.isprintable()
        assert report.detail.isprintable()
        assert report.detail or report.status in ("ok", "no-text")
    statuses = {Path(report.path).name: report.status for report in corpus.files}
    for name, allowed in EXPECTED.items():
        assert statuses[name] in allowed, name
    assert Counter(statuses.values())["ok"] > 60
    again = prepare_corpus([str(folder)], CONFIG, ByteTokenizer(), tmp_path / "cache")
    assert (again.key, again.files) == (corpus.key, corpus.files)


WRITTEN = """
import sys
from pathlib import Path
from tests.hostile_files import GIGABYTE, write_hostile
write_hostile(Path(sys.argv[1]), 2000, bomb_bytes=2 * GIGABYTE)
"""
MEASURED = """
import json, resource, sys
from pathlib import Path
from trfmoe_core.data.prepare.corpus_cache import prepare_corpus
from trfmoe_core.data.tokenizers.byte import ByteTokenizer
from tests.trfmoe_core.data.test_hostile import CONFIG
files = prepare_corpus([sys.argv[1]], CONFIG, ByteTokenizer(), Path(sys.argv[2])).files
peaks = [resource.getrusage(who).ru_maxrss >> 10 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(json.dumps([len({report.path for report in files}), *peaks]))
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_thousand_files_with_bombs_of_gigabytes_do_not_fill_the_memory(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    # A process of its own for each: what a parent has in memory counts as its child's peak too.
    for program in (WRITTEN, MEASURED):
        command = [sys.executable, "-c", program, str(folder), str(tmp_path / "cache")]
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=580)
    accounted, own_mb, child_mb = json.loads(done.stdout)
    assert accounted == walk(folder) == 2000
    assert own_mb < 1024
    assert child_mb < CONFIG.file_memory_mb + 512, "a child may take file_memory_mb more than it starts with"


@pytest.mark.slow
def test_files_that_come_go_and_change_while_they_are_read(tmp_path: Path) -> None:
    folder, count = tmp_path / "changing", 300
    folder.mkdir()
    stop, chance = threading.Event(), random.Random(0)

    def change() -> None:
        while not stop.wait(0.005):
            path = folder / f"{chance.randrange(count)}.{chance.choice(['txt', 'pdf', 'jsonl', 'md'])}"
            deed = chance.randrange(5)
            try:
                if deed == 0:
                    path.unlink()
                elif deed == 1:
                    path.unlink(missing_ok=True)
                    os.mkfifo(path)
                elif deed == 2 and path.is_file():
                    os.truncate(path, path.stat().st_size // 2)
                elif not path.exists() or path.is_file():
                    text = f"File {path.stem} now says {chance.random()}. " * 20
                    path.write_bytes(pdf([page(text)]) if path.suffix == ".pdf" else text.encode())
            except OSError:
                continue

    for number in range(0, count, 2):
        (folder / f"{number}.txt").write_text(f"File {number} before anything changed, {chance.random()}. " * 20)
    thread = threading.Thread(target=change, daemon=True)
    thread.start()
    try:
        for _ in range(3):
            corpus = prepare_corpus([str(folder)], CONFIG, ByteTokenizer(), tmp_path / "cache")
            assert Counter(report.status for report in corpus.files)["ok"] > 50
    finally:
        stop.set()
        thread.join()
