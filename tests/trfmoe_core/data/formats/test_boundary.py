import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trfmoe_core.config import DataConfig
from trfmoe_core.data.documents.records import Document, Unit
from trfmoe_core.data.formats.base import ReadLog
from trfmoe_core.data.formats.parquet import ParquetFormat
from trfmoe_core.data.formats.text import TextFormat
from trfmoe_core.data.prepare.corpus_cache import prepare_corpus
from trfmoe_core.data.tokenizers.byte import ByteTokenizer

ERRORS = [OverflowError("year 12345"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"), KeyError(3)]


@pytest.mark.parametrize("error", ERRORS)
def test_any_exception_of_a_reader_is_that_files_status(
    tmp_path: Path,
    write_parquet: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    def read(self: TextFormat, unit: Unit, log: ReadLog) -> Iterator[Document]:
        yield Document(f"the beginning of {unit.file.path.name}")
        if unit.file.path.stem == "bad":
            raise error

    def refuse(self: ParquetFormat, *arguments: object) -> list[int]:
        raise error

    monkeypatch.setattr(TextFormat, "read", read)
    monkeypatch.setattr(ParquetFormat, "group_rows", refuse)
    for name in ("bad", "good"):
        (tmp_path / f"{name}.txt").write_text(f"text of {name}")
    write_parquet(tmp_path / "rows.parquet", text=["one row", "another row"])
    with caplog.at_level(logging.WARNING, "trfmoe.data"):
        corpus = prepare_corpus([str(tmp_path)], DataConfig(), ByteTokenizer(), tmp_path / "cache")
    found = {Path(report.path).name: report for report in corpus.files}
    assert {name: report.status for name, report in found.items()} == {
        "bad.txt": "partial",
        "good.txt": "ok",
        "rows.parquet": "ok",
    }
    assert f"its reader failed: {type(error).__name__} at test_boundary.py:" in found["bad.txt"].detail
    assert "bad.txt" in caplog.text and type(error).__name__ in caplog.text
