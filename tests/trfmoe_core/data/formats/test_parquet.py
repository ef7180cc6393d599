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


def test_the_other_columns_are_kept_as_provenance(tmp_path: Path) -> None:
    (first, second, *_), _ = read(opened(fineweb(tmp_path / "a.parquet", 5)))
    assert second.place == "row 1"
    assert dict(second.meta) == {
        "id": "<urn:uuid:1>",
        "dump": "CC-MAIN-2024-10",
        "url": "https://example.org/1",
        "date": "2024-03-01T00:00:00Z",
        "file_path": "s3://x",
        "language": "en",
        "language_score": 0.9,
        "token_count": 1,
    }
    pq.write_table(pa.table({"text": ["only this"], "url": [[1, 2]]}), tmp_path / "b.parquet")
    assert read(opened(tmp_path / "b.parquet"))[0] == [Document("only this", "row 0", {})]
    assert first.meta["language"] == "de"


def test_languages_are_filtered_only_where_a_column_says_them(tmp_path: Path) -> None:
    documents, (report,) = read(opened(fineweb(tmp_path / "a.parquet", 100), languages="EN"))
    assert len(documents) == 75
    assert {document.meta["language"] for document in documents} == {"en"}
    assert (report.status, report.detail) == ("ok", "25 rows in other languages left out")
    pq.write_table(pa.table({"text": ["wer weiß"], "lang": ["de"]}), tmp_path / "b.parquet")
    assert len(read(opened(tmp_path / "b.parquet", languages=["en"]))[0]) == 1


def test_a_file_that_is_gone_or_replaced_is_reported(tmp_path: Path) -> None:
    source = opened(fineweb(tmp_path / "a.parquet", 10))
    fineweb(tmp_path / "a.parquet", 20)
    documents, (report,) = read(source)
    assert (documents, report.status) == ([], "changed")
    (tmp_path / "a.parquet").unlink()
    documents, (report,) = read(source)
    assert (documents, report.status) == ([], "unreadable")


def test_memory_does_not_grow_with_the_row_group(tmp_path: Path) -> None:
    words = " ".join(str(number * 7919 % 99991) for number in range(900))
    writer = pq.ParquetWriter(tmp_path / "a.parquet", pa.schema({"text": pa.large_string()}), compression="zstd")
    rows = [words[row % 500 :] + str(row) for row in range(30_000)]
    writer.write_table(pa.table({"text": pa.array(rows, pa.large_string())}), row_group_size=10**6)
    writer.close()
    size = sum(map(len, rows))
    del rows
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from tests.trfmoe_core.data.formats.test_parquet import opened\n"
        "from trfmoe_core.data.formats.base import FORMATS, ReadLog\n"
        "(unit,) = opened(Path(sys.argv[1])).units\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "characters = sum(len(document.text) for document in FORMATS.find('parquet')().read(unit, ReadLog()))\n"
        "print(characters, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "a.parquet")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    characters, grown_kb = map(int, done.stdout.split())
    assert characters == size > 120 << 20
    assert grown_kb < 60 << 10
