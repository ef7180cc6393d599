import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest
from backports import zstd

from trfmoe_core.config import DataConfig
from trfmoe_core.data.documents.reports import FileReport
from trfmoe_core.data.formats import compression, kind_of
from trfmoe_core.data.formats.compression import Decompressed
from trfmoe_core.data.formats.reading import Reading
from trfmoe_core.data.sources import OpenContext, open_sources
from trfmoe_core.data.sources.find import find_files

LINES = [f"line {number} of many, some {number * number % 9973} words long" for number in range(30_000)]
TEXT = "\n".join(LINES)


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".zst": zstd.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


def compressed(path: Path, data: bytes) -> Path:
    path.write_bytes(COMPRESS[path.suffix](data))
    return path


def read(path: Path, cache: Path) -> tuple[list[str], FileReport]:
    (source,) = open_sources([str(path)], OpenContext(DataConfig(), cache))
    reading = Reading(source.units[0])
    return [document.text for document in reading], reading.report


@pytest.mark.parametrize("end", COMPRESS)
def test_compressed_files_read_as_plain_ones_do(tmp_path: Path, end: str) -> None:
    texts, report = read(compressed(tmp_path / f"a.txt{end}", TEXT.encode()), tmp_path / "cache")
    assert ("".join(texts), report.status, report.kind) == (TEXT, "ok", "text")
    lines = "\n".join(json.dumps({"text": line}) for line in LINES[:500]).encode()
    texts, report = read(compressed(tmp_path / f"a.jsonl{end}", lines), tmp_path / "cache")
    assert (texts, report.status, report.pages) == (LINES[:500], "ok", 500)


@pytest.mark.parametrize("end", COMPRESS)
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
    assert (texts, report.status) == (["this is plain text after all"], "ok")
    assert report.detail == f"its content is not compressed, its suffix is '{end}'"


@pytest.mark.parametrize("end", COMPRESS)
def test_several_members_are_one_file(tmp_path: Path, end: str) -> None:
    path = compressed(tmp_path / f"a.txt{end}", TEXT.encode())
    path.write_bytes(path.read_bytes() * 2 + b"\0" * 70_000 * (end == ".gz"))
    with Decompressed(find_files([str(path)])[0]) as file:
        assert file.read() == TEXT.encode() * 2
        assert file.problem is None


@pytest.mark.parametrize("end", COMPRESS)
def test_a_bomb_is_cut_off(tmp_path: Path, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "FREE_BYTES", 1 << 20)
    path = compressed(tmp_path / f"bomb.txt{end}", b"ha " * (2 << 20))
    texts, report = read(path, tmp_path / "cache")
    assert sum(map(len, texts)) <= max(1 << 20, 50 * path.stat().st_size)
    assert report.status == "partial"
    assert "inflates to more than 50 times its size" in report.detail
    path = compressed(tmp_path / f"zeros.jsonl{end}", b"\0" * (2 << 20))
    assert read(path, tmp_path / "cache")[1].status == "unsupported"


@pytest.mark.parametrize("end", COMPRESS)
def test_a_damaged_frame_costs_no_text_before_it(tmp_path: Path, end: str) -> None:
    text = "\n".join(LINES[:300])
    damaged = bytearray(COMPRESS[end](text.encode()))
    damaged[len(damaged) // 2] ^= 0x5A
    path = tmp_path / f"a.txt{end}"
    path.write_bytes(COMPRESS[end](text.encode()) + bytes(damaged))
    texts, report = read(path, tmp_path / "cache")
    assert "".join(texts).startswith(text)
    assert report.status == "partial"
    assert "compression is broken" in report.detail


def test_frames_with_long_windows_and_skippable_frames_are_read(tmp_path: Path) -> None:
    # Written by hand: a window of 2 GiB, and one raw block that is the last.
    long = b"\x28\xb5\x2f\xfd\0" + bytes([(31 - 10) << 3]) + (1 | len(TEXT[:90]) << 3).to_bytes(3, "little")
    path = tmp_path / "long.txt.zst"
    path.write_bytes(b"\x50\x2a\x4d\x18\4\0\0\0skip" + long + TEXT[:90].encode() + zstd.compress(b" and more"))
    assert read(path, tmp_path / "cache")[0] == [TEXT[:90] + " and more"]


def test_content_decides_and_not_the_suffix(tmp_path: Path) -> None:
    line = json.dumps({"text": LINES[0]}).encode()
    for name, data, kind in (
        ("a.jsonl", gzip.compress(line), "jsonl"),
        ("b.json.gz", line, "jsonl"),
        ("c.jsonl.gz", zstd.compress(line), "jsonl"),
        ("d.txt", bz2.compress(LINES[0].encode()), "text"),
    ):
        (tmp_path / name).write_bytes(data)
        texts, report = read(tmp_path / name, tmp_path / "cache")
        assert (texts, report.status, report.kind) == ([LINES[0]], "ok", kind)
        assert report.detail.startswith("its content is ")


def test_only_text_formats_may_be_compressed() -> None:
    names = ("a.txt.gz", "a.md.zst", "a.jsonl.gz", "a.NDJSON.ZST", "a.pdf.gz", "a.parquet.zst", "a.gz", "txt.gz")
    assert [kind_of(Path(name)) for name in names] == ["text", "text", "jsonl", "jsonl", *["other"] * 4]
    for name in ("a.json.gz", "a.jsonlines", "a.ndjson.bz2", "a.JSON.XZ", "a.jsonl.zstd"):
        assert kind_of(Path(name)) == "jsonl"
