import os
import random
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.places import ROOT
from trfmoe_core.config import DataConfig, NodeSettings
from trfmoe_core.data.documents.records import Document
from trfmoe_core.data.documents.reports import FileReport
from trfmoe_core.data.formats import parquet
from trfmoe_core.data.formats.reading import Reading
from trfmoe_core.data.sources import OpenContext, OpenedSource, open_sources


def opened(path: Path, **more: object) -> OpenedSource:
    settings = NodeSettings.model_validate({"name": "n", "data": [{"path": str(path), **more}]})
    (source,) = open_sources(settings.data, OpenContext(DataConfig(), path.parent / "cache"))
    return source


def read(source: OpenedSource) -> tuple[list[Document], list[FileReport]]:
    documents, reports = [], []
    for unit in source.units:
        reading = Reading(unit)
        documents += list(reading)
        reports.append(reading.report)
    return documents, source.reports(reports)


def fineweb(path: Path, rows: int, row_group_size: int = 100) -> Path:
    """A shard with FineWeb's nine columns."""
    table = pa.table(
        {
            "text": [f"Page number {row} says this and that." for row in range(rows)],
            "id": [f"<urn:uuid:{row}>" for row in range(rows)],
            "dump": ["CC-MAIN-2024-10"] * rows,
            "url": [f"https://example.org/{row}" for row in range(rows)],
            "date": ["2024-03-01T00:00:00Z"] * rows,
            "file_path": ["s3://x"] * rows,
            "language": ["en" if row % 4 else "de" for row in range(rows)],
            "language_score": [0.9] * rows,
            "token_count": pa.array(range(rows), pa.int64()),
        }
    )
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


def test_a_file_is_read_in_runs_of_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fineweb(tmp_path / "a.parquet", 1050)
    whole, _ = read(opened(path))
    monkeypatch.setattr(parquet, "UNIT_ROWS", 250)
    source = opened(path)
    assert [(unit.start, unit.stop) for unit in source.units] == [(0, 300), (300, 600), (600, 900), (900, 1050)]
    documents, (report,) = read(source)
    assert documents == whole
    assert (report.status, report.pages) == ("ok", 1050)
    last = list(Reading(source.units[3]))
    assert last == whole[900:]


def test_a_part_may_begin_and_end_inside_a_row_group(tmp_path: Path) -> None:
    path = fineweb(tmp_path / "a.parquet", 1001, row_group_size=10**6)
    texts = []
    for index in range(3):
        texts += [document.text for document in read(opened(path, partition={"index": index, "of": 3}))[0]]
    assert texts == [document.text for document in read(opened(path))[0]]


def test_only_the_texts_are_read(tmp_path: Path) -> None:
    """What is odd in other columns, also in their names, changes nothing."""
    texts = [f"Row {number} says this and that." for number in range(9)]
    latin = pa.StringArray.from_buffers(
        9, pa.py_buffer(b"".join((2 * n).to_bytes(4, "little") for n in range(10))), pa.py_buffer(b"\xfc." * 9)
    )
    table = pa.table(
        {
            "url": latin,
            "date": pa.array([2**45] * 9, pa.timestamp("s", tz="Mars/Olympus")),
            "text": texts,
            "date_too": pa.array([10**17] * 9, pa.timestamp("us")),
            "stadt_": ["x"] * 9,
        }
    )
    path = tmp_path / "a.parquet"
    pq.write_table(table, path)
    path.write_bytes(path.read_bytes().replace(b"stadt_", b"st\xe4dte"))
    documents, (report,) = read(opened(path))
    assert ([document.text for document in documents], report.status) == (texts, "ok")
    assert documents[1].place == "row 1"


def test_a_name_that_is_not_utf_8_is_no_obstacle(tmp_path: Path) -> None:
    path = fineweb(tmp_path / "a.parquet", 5).rename(tmp_path / os.fsdecode(b"gr\xfcn.parquet"))
    fineweb(tmp_path / "b.parquet", 6)
    source = opened(tmp_path)
    assert [report.status for report in read(source)[1]] == ["ok", "ok"]
    assert path.exists()
    assert sum(len(read(opened(tmp_path, partition={"index": index, "of": 2}))[0]) for index in (0, 1)) == 11


LANGUAGE_TYPES = {
    "string": pa.string(),
    "large": pa.large_string(),
    "view": pa.string_view(),
    "category": pa.dictionary(pa.int8(), pa.string()),
    "bytes": pa.binary(),
}


@pytest.mark.parametrize("kind", LANGUAGE_TYPES.values(), ids=LANGUAGE_TYPES)
def test_languages_are_filtered_whatever_their_type(tmp_path: Path, kind: pa.DataType) -> None:
    values = (
        ["en", "de", "EN", None, "fr", b"\xff"] if pa.types.is_binary(kind) else ["en", "de", "EN", None, "fr", "x"]
    )
    raw = [value.encode() if isinstance(value, str) and pa.types.is_binary(kind) else value for value in values]
    pq.write_table(pa.table({"text": list("abcdef"), "language": pa.array(raw, kind)}), tmp_path / "a.parquet")
    documents, (report,) = read(opened(tmp_path / "a.parquet", languages="EN"))
    assert [document.text for document in documents] == ["a", "c"]
    assert (report.status, report.detail) == ("ok", "4 rows in other languages, or without one, left out")


def test_a_filter_that_cannot_be_applied_refuses_the_file(tmp_path: Path) -> None:
    for name, columns in (("none", {"lang": ["de"]}), ("number", {"language": [1]}), ("list", {"language": [["en"]]})):
        pq.write_table(pa.table({"text": ["wer weiß"], **columns}), tmp_path / f"{name}.parquet")
        documents, (report,) = read(opened(tmp_path / f"{name}.parquet", languages=["en"]))
        assert (documents, report.status) == ([], "broken")
        assert report.detail.startswith("`languages` cannot be applied: ")


@pytest.mark.parametrize(
    "kind", [pa.string_view(), pa.binary(), pa.large_binary(), pa.dictionary(pa.int8(), pa.large_string())]
)
def test_texts_may_have_any_type_of_strings(tmp_path: Path, kind: pa.DataType) -> None:
    pq.write_table(
        pa.table({"text": pa.array([b"one", None, b"two"]).cast(pa.string()).cast(kind)}), tmp_path / "a.parquet"
    )
    assert [document.text for document in read(opened(tmp_path / "a.parquet"))[0]] == ["one", "two"]


def test_texts_in_a_struct_are_read_if_there_is_only_one_such_column(tmp_path: Path) -> None:
    values = [{"n": 1, "text": "one"}, None, {"n": 2, "text": "two"}]
    for name, column in (("a", "document"), ("b", "text")):
        pq.write_table(pa.table({column: values}), tmp_path / f"{name}.parquet")
        assert [document.text for document in read(opened(tmp_path / f"{name}.parquet"))[0]] == ["one", "two"]
    two = pa.table({"a": values, "b": values})
    pq.write_table(two, tmp_path / "c.parquet")
    (report,) = read(opened(tmp_path / "c.parquet"))[1]
    assert report.detail == "2 columns could be 'text': a.text (string), b.text (string); rename all but one"


def test_of_two_columns_of_one_name_the_one_with_strings_is_read(tmp_path: Path) -> None:
    texts, numbers = pa.array(["one", "two"]), pa.array([1, 2])
    pq.write_table(pa.Table.from_arrays([numbers, texts], names=["text", "text"]), tmp_path / "a.parquet")
    assert [document.text for document in read(opened(tmp_path / "a.parquet"))[0]] == ["one", "two"]
    pq.write_table(pa.Table.from_arrays([texts, texts], names=["text", "text"]), tmp_path / "b.parquet")
    documents, (report,) = read(opened(tmp_path / "b.parquet"))
    assert (documents, report.status) == ([], "broken")
    assert report.detail == "2 columns could be 'text': text (string), text (string); rename all but one"
    long = pa.table({"x" * 100_000: ["one"]})
    pq.write_table(long, tmp_path / "c.parquet")
    assert len(read(opened(tmp_path / "c.parquet"))[1][0].detail) < 200


def test_a_file_that_is_gone_or_replaced_is_reported(tmp_path: Path) -> None:
    source = opened(fineweb(tmp_path / "a.parquet", 10))
    fineweb(tmp_path / "a.parquet", 20)
    documents, (report,) = read(source)
    assert (documents, report.status) == ([], "changed")
    (tmp_path / "a.parquet").unlink()
    documents, (report,) = read(source)
    assert (documents, report.status) == ([], "unreadable")


def test_memory_does_not_grow_with_the_row_group(tmp_path: Path) -> None:
    chance = random.Random(0)
    writer = pq.ParquetWriter(tmp_path / "a.parquet", pa.schema({"text": pa.large_string()}), compression="zstd")
    rows = [chance.randbytes(3000).hex() for _ in range(15_000)]
    writer.write_table(pa.table({"text": pa.array(rows, pa.large_string())}), row_group_size=10**6)
    writer.close()
    size = sum(map(len, rows))
    del rows
    characters, grown_kb = measured(tmp_path / "a.parquet")
    assert characters == size > 80 << 20
    assert grown_kb < 40 << 10


@pytest.mark.parametrize(
    "how", ["dictionary", *(pytest.param(how, marks=pytest.mark.slow) for how in ("category", "delta", "plain"))]
)
def test_a_bomb_fills_no_memory(tmp_path: Path, how: str) -> None:
    """A few KB of parquet that stand for 2 GB of rows, or for a page of 90 MB."""
    path = tmp_path / "a.parquet"
    value = "many words " * (730_000 if how in ("dictionary", "category") else 360_000)
    array = pa.DictionaryArray.from_arrays(pa.array([0] * 256, pa.int8()), [value])
    if how in ("delta", "plain"):
        array = pa.array([value] * 24)
    encoding = {"delta": "DELTA_BYTE_ARRAY", "plain": "PLAIN"}.get(how)
    pq.write_table(
        pa.table({"text": array}),
        path,
        compression="zstd",
        use_dictionary=encoding is None,
        column_encoding=encoding,
        store_schema=how == "category",
    )
    assert path.stat().st_size < 1 << 16
    characters, grown_kb = measured(path)
    assert characters <= 64 << 20
    assert grown_kb < 150 << 10


def measured(path: Path) -> tuple[int, int]:
    """Returns the characters of a file's documents, and by how many KiB memory grows while they are read."""
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from tests.trfmoe_core.data.formats.test_parquet import opened\n"
        "from trfmoe_core.data.formats.reading import Reading\n"
        "units = opened(Path(sys.argv[1])).units\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "characters = sum(len(document.text) for unit in units for document in Reading(unit))\n"
        "print(characters, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    command = [sys.executable, "-c", program, str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    characters, grown_kb = map(int, done.stdout.split())
    return characters, grown_kb
