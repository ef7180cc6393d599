import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest

from trfmoe_core.config import DataConfig
from trfmoe_core.data.documents.reports import FileReport
from trfmoe_core.data.formats import compression, kind_of
from trfmoe_core.data.formats.compression import Decompressed
from trfmoe_core.data.formats.reading import Reading
from trfmoe_core.data.sources import OpenContext, open_sources
from trfmoe_core.data.sources.find import find_files

LINES = [f"line {number} of many, some {number * number % 9973} words long" for number in range(30_000)]
TEXT = "\n".join(LINES)


def compressed(path: Path, data: bytes) -> Path:
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(data, mtime=0))
    else:
        with pa.CompressedOutputStream(pa.OSFile(str(path), "wb"), "zstd") as stream:
            stream.write(data)
    return path


def read(path: Path, cache: Path) -> tuple[list[str], FileReport]:
    (source,) = open_sources([str(path)], OpenContext(DataConfig(), cache))
    reading = Reading(source.units[0])
    return [document.text for document in reading], reading.report


@pytest.mark.parametrize("end", [".gz", ".zst"])
def test_compressed_files_read_as_plain_ones_do(tmp_path: Path, end: str) -> None:
    texts, report = read(compressed(tmp_path / f"a.txt{end}", TEXT.encode()), tmp_path / "cache")
    assert ("".join(texts), report.status, report.kind) == (TEXT, "ok", "text")
    lines = "\n".join(json.dumps({"text": line}) for line in LINES[:500]).encode()
    texts, report = read(compressed(tmp_path / f"a.jsonl{end}", lines), tmp_path / "cache")
    assert (texts, report.status, report.pages) == (LINES[:500], "ok", 500)


@pytest.mark.parametrize("end", [".gz", ".zst"])
def test_what_is_good_before_a_break_is_kept(tmp_path: Path, end: str) -> None:
    path = compressed(tmp_path / f"a.txt{end}", TEXT.encode())
    path.write_bytes(path.read_bytes()[:-2000])
    texts, report = read(path, tmp_path / "cache")
    whole = "".join(texts)
    assert len(TEXT) // 2 < len(whole) < len(TEXT)
    assert TEXT.startswith(whole)
    assert report.status == "partial"
    assert "compression is broken" in report.detail
    path.write_bytes(b"this is plain text after all")
    texts, report = read(path, tmp_path / "cache")
    assert (texts, report.status) == ([], "broken")


@pytest.mark.parametrize("end", [".gz", ".zst"])
def test_several_members_are_one_file(tmp_path: Path, end: str) -> None:
    path = compressed(tmp_path / f"a.txt{end}", TEXT.encode())
    path.write_bytes(path.read_bytes() * 2 + b"\0" * 70_000 * (end == ".gz"))
    with Decompressed(find_files([str(path)])[0]) as file:
        assert file.read() == TEXT.encode() * 2
        assert file.problem is None


@pytest.mark.parametrize("end", [".gz", ".zst"])
def test_a_bomb_is_cut_off(tmp_path: Path, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "FREE_BYTES", 1 << 20)
    path = compressed(tmp_path / f"bomb.txt{end}", b"ha " * (8 << 20))
    texts, report = read(path, tmp_path / "cache")
    assert sum(map(len, texts)) <= max(1 << 20, 50 * path.stat().st_size)
    assert report.status == "partial"
    assert "inflates to more than 50 times its size" in report.detail
    path = compressed(tmp_path / f"zeros.jsonl{end}", b"\0" * (24 << 20))
    assert read(path, tmp_path / "cache")[1].status in ("too-large", "broken")


def test_only_text_formats_may_be_compressed() -> None:
    names = ("a.txt.gz", "a.md.zst", "a.jsonl.gz", "a.NDJSON.ZST", "a.pdf.gz", "a.parquet.zst", "a.gz", "txt.gz")
    assert [kind_of(Path(name)) for name in names] == ["text", "text", "jsonl", "jsonl", *["other"] * 4]
