from collections import Counter
from pathlib import Path

from scripts.bench.hostile import walk
from scripts.bench.hostile_files import write_hostile
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
    "latin-1.txt": {"partial"},
    "UPPER.PDF": {"ok"},
    "zeros.txt": {"no-text"},
}


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
