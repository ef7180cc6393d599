from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trfmoe_core.config import DataConfig
from trfmoe_core.data.documents.reports import FileReport
from trfmoe_core.data.formats import json_values, text
from trfmoe_core.data.formats.reading import Reading
from trfmoe_core.data.sources import OpenContext, OpenedSource, open_sources

Read = Callable[[Path], tuple[list[str], FileReport]]


@pytest.fixture
def read(tmp_path_factory: pytest.TempPathFactory) -> Read:
    """Reads one file: its texts and its report."""
    context = OpenContext(DataConfig(), tmp_path_factory.mktemp("cache"))

    def read(path: Path) -> tuple[list[str], FileReport]:
        (source,) = open_sources([str(path)], context)
        texts, (report,) = read_source(source)
        return texts, report

    return read


def read_source(source: OpenedSource) -> tuple[list[str], list[FileReport]]:
    texts, parts = [], []
    for unit in source.units:
        reading = Reading(unit)
        texts += [document.text for document in reading]
        parts.append(reading.report)
    return texts, source.reports(parts)


def test_every_file_of_a_mixed_folder_gets_its_status(mixed_folder: Path, tmp_path: Path) -> None:
    (source,) = open_sources([str(mixed_folder)], OpenContext(DataConfig(), tmp_path / "cache"))
    texts, reports = read_source(source)
    got = {Path(report.path).name: report.status for report in reports}
    assert sum(map(len, texts)) == sum(report.characters for report in reports)
    for report in reports:
        assert bool(report.characters) == (report.status in ("ok", "partial"))
        assert bool(report.detail) or report.status == "ok"
    assert got == {
        "columns.parquet": "broken",
        "copy.PDF": "ok",
        "empty.pdf": "empty",
        "good.parquet": "ok",
        "good.pdf": "duplicate",
        "good.txt": "ok",
        "image.png": "unsupported",
        "latin.md": "partial",
        "locked.pdf": "needs-password",
        "none.jsonl": "broken",
        "numbers.parquet": "broken",
        "page.pdf": "not-a-pdf",
        "picture.pdf": "no-text",
        "some.jsonl": "partial",
        "torn.parquet": "broken",
        "torn.pdf": "broken",
    }


def test_details_say_what_was_wrong(mixed_folder: Path, read: Read) -> None:
    assert read(mixed_folder / "columns.parquet")[1].detail == "no column 'text'; it has body (string), url (string)"
    assert read(mixed_folder / "numbers.parquet")[1].detail == "column 'text' holds no strings: text (int64)"
    assert read(mixed_folder / "good.parquet")[1].detail == "1 row without text"
    detail = read(mixed_folder / "some.jsonl")[1].detail
    assert detail.startswith("3 bad values, first line 2: no JSON")
    assert (
        read(mixed_folder / "none.jsonl")[1].detail
        == "1 bad values, first line 1: no string under 'text' (has nothing)"
    )


def test_parquet_strings_of_every_type_and_bad_bytes(tmp_path: Path, read: Read) -> None:
    for number, kind in enumerate((pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string()))):
        path = tmp_path / f"{number}.parquet"
        pq.write_table(pa.table({"text": pa.array([f"one{number}", "two"], kind)}), path)
        assert read(path)[0] == [f"one{number}", "two"]
    bad = pa.StringArray.from_buffers(2, pa.py_buffer(b"\0\0\0\0\2\0\0\0\4\0\0\0"), pa.py_buffer(b"a\xffok"))
    pq.write_table(pa.table({"text": bad}), tmp_path / "bad.parquet")
    texts, report = read(tmp_path / "bad.parquet")
    assert (texts, report.status) == (["ok"], "partial")
    assert report.detail.startswith("1 rows are no text, first row 0: no UTF-8")


def test_parquet_that_breaks_in_the_middle_is_partial(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "x.parquet"
    values = [f"row {number} " * 50 for number in range(600)]
    pq.write_table(pa.table({"text": values}), path, row_group_size=200, compression="none", use_dictionary=False)
    data = bytearray(path.read_bytes())
    second = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    data[second : second + 64] = b"\xff" * 64
    path.write_bytes(data)
    texts, report = read(path)
    assert report.status == "partial"
    assert 0 < len(texts) < 600
    assert texts == [value.strip() for value in values[: len(texts)]]


def test_large_text_comes_in_blocks_at_paragraphs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Read) -> None:
    path = tmp_path / "x.txt"
    path.write_text("\n\n".join(f"Grüße {number} 你好" for number in range(9_000)))
    monkeypatch.setattr(text, "_BLOCK_CHARACTERS", 4099)
    texts, report = read(path)
    assert len(texts) > 30
    assert all(text.startswith("Grüße ") and text.endswith(" 你好") for text in texts)
    assert "\n\n".join(texts) == path.read_text()
    assert (report.status, report.characters) == ("ok", sum(map(len, texts)))


def test_marks_of_unicode_encodings_are_understood(tmp_path: Path, read: Read) -> None:
    for encoding in ("utf-8-sig", "utf-16"):
        path = tmp_path / f"{encoding}.txt"
        path.write_text("Grüße", encoding=encoding)
        assert read(path)[0] == ["Grüße"]
        assert read(path)[1].status == "ok"
    path = tmp_path / "cut.txt"
    path.write_bytes(("Grüße aus Köln. " * 20 + "ü").encode()[:-1])
    texts, report = read(path)
    assert (texts, report.status) == (["Grüße aus Köln. " * 20 + "\ufffd"], "partial")
    assert report.detail == "1 unreadable characters became U+FFFD"


def test_json_lines_that_are_traps(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "x.jsonl"
    deep = "[" * 200_000
    lines = ['{"text": "a\\ud800b"}', deep, '{"text": null}', '{"text": 3}', '{"text": "last"}', '{"x": ' + "9" * 5000]
    path.write_text("\ufeff" + "\n".join(lines))
    texts, report = read(path)
    assert texts == ["last"]
    assert report.status == "partial"
    assert report.detail.startswith("4 bad values, first line 2: ")
    assert report.detail.endswith("1 documents with more than 1% unreadable characters")


def test_lines_too_long_for_memory_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Read) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "' + "y" * 300 + '"}\n{"text": "short"}\n' + '{"text": "' + "z" * 300)
    monkeypatch.setattr(json_values, "MAX_CHARACTERS", 100)
    texts, report = read(path)
    assert texts == ["short"]
    assert report.detail.startswith("2 bad values, first line 1: longer than")


def test_pages_of_a_pdf_become_one_document(tmp_path: Path, write_pdf: Callable[..., Path], read: Read) -> None:
    path = write_pdf(tmp_path / "x.pdf", [["the experi-", "ment works"], [], ["second page"]])
    texts, report = read(path)
    assert texts == ["the experiment works\n\fsecond page"]
    assert (report.status, report.pages) == ("ok", 2)
