import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hostile_files import page, pdf
from tests.trfmoe_core.data.pdf.made import HELVETICA, NO_MAP, content, document, with_attachments
from trfmoe_core.config import DataConfig, NodeSettings
from trfmoe_core.data.documents.records import SourceFile
from trfmoe_core.data.extraction import extractor
from trfmoe_core.data.extraction.extract import RETRY_S, Extraction, extract_all, text_path
from trfmoe_core.data.extraction.extractor import ExtractedText, Extractor, FileLimits
from trfmoe_core.data.formats.reading import Reading
from trfmoe_core.data.sources import OpenContext, open_sources
from trfmoe_core.data.sources.find import find_files
from trfmoe_core.errors import DataError

HOW = Extraction("pypdf", FileLimits(60, 1024))


def write(folder: Path, *texts: str) -> list[SourceFile]:
    folder.mkdir(exist_ok=True)
    for number, text in enumerate(texts):
        (folder / f"{number}.pdf").write_bytes(pdf([page(text)]))
    return find_files([str(folder)])


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files that are opened by a reader."""
    names: list[str] = []
    real = Extractor.read

    def read(self: Extractor, file: SourceFile, out: Path) -> ExtractedText:
        names.append(file.path.name)
        return real(self, file, out)

    monkeypatch.setattr(Extractor, "read", read)
    return names


def test_a_file_is_read_once_wherever_it_lies(tmp_path: Path, reads: list[str]) -> None:
    files = write(tmp_path / "in", "one", "two", "three")
    told: list[tuple[int, int]] = []
    first = extract_all(files, HOW, tmp_path / "cache", progress=lambda done, total: told.append((done, total)))
    assert sorted(reads) == ["0.pdf", "1.pdf", "2.pdf"]
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]
    texts = {text_path(file, HOW, tmp_path / "cache").read_text() for file in files}
    assert texts == {"one", "two", "three"}
    (tmp_path / "in").rename(tmp_path / "moved")
    assert extract_all(find_files([str(tmp_path / "moved")]), HOW, tmp_path / "cache") == first
    assert len(reads) == 3
    assert not list((tmp_path / "cache").rglob("*.tmp"))


def test_other_options_and_lost_texts_are_read_again(tmp_path: Path, reads: list[str]) -> None:
    files = write(tmp_path / "in", "one")
    extract_all(files, HOW, tmp_path / "cache")
    extract_all(files, Extraction("pypdf", HOW.limits, drop_headers=False), tmp_path / "cache")
    assert len(reads) == 2
    text = text_path(files[0], HOW, tmp_path / "cache")
    text.write_text("on")
    extract_all(files, HOW, tmp_path / "cache")
    assert (len(reads), text.read_text()) == (3, "one")
    text.with_suffix(".json").write_text("{")
    extract_all(files, HOW, tmp_path / "cache")
    assert len(reads) == 4
    extract_all(files, Extraction("pypdf", FileLimits(1, 512)), tmp_path / "cache")
    assert len(reads) == 4


def test_a_password_that_comes_later_is_tried(tmp_path: Path, write_pdf: Callable[..., Path], reads: list[str]) -> None:
    write_pdf(tmp_path / "locked.pdf", [["secret text"]], password="key")
    (tmp_path / "keys.txt").write_text("wrong\n\nkey\n")
    plain = NodeSettings.model_validate({"name": "n", "data": [{"path": str(tmp_path / "locked.pdf")}]}).data
    keys = NodeSettings.model_validate(
        {"name": "n", "data": [{"path": str(tmp_path / "locked.pdf"), "passwords": str(tmp_path / "keys.txt")}]}
    ).data
    context = OpenContext(DataConfig(), tmp_path / "cache")
    for _ in range(2):
        (source,) = open_sources(plain, context)
        assert [file.report.status for file in source.files if file.report] == ["needs-password"]
    assert len(reads) == 1
    for _ in range(2):
        (source,) = open_sources(keys, context)
        assert [unit.extracted.status for unit in source.units if unit.extracted] == ["ok"]
    assert len(reads) == 2
    for path in (tmp_path / "cache").rglob("*.json"):
        assert "wrong" not in path.read_text()
    (tmp_path / "keys.txt").unlink()
    with pytest.raises(DataError, match=r"passwords: .*keys\.txt: cannot be read"):
        open_sources(keys, context)


def results(tmp_path: Path, files: list[SourceFile], how: Extraction, now: float) -> list[ExtractedText]:
    return list(extract_all(files, how, tmp_path / "cache", now=lambda: now).values())


def test_a_files_own_timeout_is_kept_until_the_limit_is_raised(tmp_path: Path, reads: list[str]) -> None:
    endless = b"BT /F1 1 Tf " + b"(x) Tj " * 3_000_000 + b"ET"
    (tmp_path / "endless.pdf").write_bytes(pdf([endless]))
    files = find_files([str(tmp_path / "endless.pdf")])
    short = Extraction("pypdf", FileLimits(0.3, 1024))
    (result,) = results(tmp_path, files, short, 0.0)
    assert result.status == "timeout"
    assert "0.3 s of a processor" in result.detail
    if result.settled:  # On a machine too busy to give it 0.3 s the other test's rule holds.
        assert results(tmp_path, files, short, 10 * RETRY_S) == [result]
        assert len(reads) == 1
    results(tmp_path, files, Extraction("pypdf", FileLimits(0.4, 1024)), 10 * RETRY_S)
    assert len(reads) == 2


def test_a_timeout_of_a_busy_machine_is_tried_again_later(
    tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write(tmp_path / "in", "one")
    with monkeypatch.context() as patch:
        patch.setattr(extractor, "WALL_FACTOR", 0.0)
        (result,) = results(tmp_path, files, Extraction("pypdf", FileLimits(60, 1024)), 1000.0)
    assert (result.status, result.settled) == ("timeout", False)
    assert results(tmp_path, files, HOW, 1000.0 + RETRY_S - 1) == [result]
    assert len(reads) == 1
    (result,) = results(tmp_path, files, HOW, 1000.0 + RETRY_S)
    assert (result.status, result.settled, len(reads)) == ("ok", True, 2)


def test_a_file_that_changed_meanwhile_is_reported_and_not_kept(tmp_path: Path, reads: list[str]) -> None:
    files = write(tmp_path / "in", "one")
    (tmp_path / "in" / "0.pdf").write_bytes(pdf([page("another")]))
    (result,) = results(tmp_path, files, HOW, 0.0)
    assert result.status == "changed"
    (tmp_path / "in" / "0.pdf").unlink()
    os.mkfifo(tmp_path / "in" / "0.pdf")
    (result,) = results(tmp_path, files, HOW, 0.0)
    assert result.status in ("not-a-pdf", "unreadable")
    assert not list((tmp_path / "cache").rglob("*.txt"))


def test_workers_work_side_by_side_and_stop_when_one_cannot_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = threading.Barrier(2, timeout=30)

    def read(self: Extractor, file: SourceFile, out: Path) -> ExtractedText:
        together.wait()
        return ExtractedText("no-text")

    files = write(tmp_path / "in", "one", "two")
    with monkeypatch.context() as patch:
        patch.setattr(Extractor, "read", read)
        found = extract_all(files, Extraction("pypdf", HOW.limits, workers=2), tmp_path / "cache-2")
    assert [text.status for text in found.values()] == ["no-text"] * 2

    with monkeypatch.context() as patch:
        patch.setattr(extractor.sys, "executable", "/bin/false")
        with pytest.raises(DataError, match="could not start"):
            extract_all(files, Extraction("pypdf", HOW.limits, workers=2), tmp_path / "cache-3")


def test_page_errors_reach_the_report(tmp_path: Path) -> None:
    good = pdf([page("a page that is fine"), page("another one")])
    spoilt = good.replace(b"/Length", b"/Filter/NoSuchDecode/Length", 1)
    (tmp_path / "spoilt.pdf").write_bytes(spoilt)
    config = DataConfig.model_validate({"pdf": {"engine": "pypdf"}})
    (source,) = open_sources([str(tmp_path / "spoilt.pdf")], OpenContext(config, tmp_path / "cache"))
    (unit,) = source.units
    assert unit.extracted is not None
    assert (unit.extracted.status, unit.extracted.pages) == ("partial", 1)
    assert len(unit.extracted.page_errors) == 1
    assert unit.extracted.page_errors[0].startswith("page 1: ")
    record = next((tmp_path / "cache").rglob("*.json"))
    assert json.loads(record.read_text())["page_errors"] == unit.extracted.page_errors


def test_provenance_counts_the_pages_of_the_file(tmp_path: Path) -> None:
    inner = pdf([page("An attached page."), b"", page("The third page of it.")])
    data = with_attachments(pdf([b"", page("The second page."), b"", page("The fourth.")]), [("in.pdf", inner)])
    (tmp_path / "x.pdf").write_bytes(data)
    (source,) = open_sources([str(tmp_path / "x.pdf")], OpenContext(DataConfig(), tmp_path / "cache"))
    reading = Reading(source.units[0])
    found = [(document.place, document.text) for document in reading]
    assert found == [
        ("pages 2-4", "The second page.\n\fThe fourth."),
        ("pages 1-3 of in.pdf", "An attached page.\n\fThe third page of it."),
    ]
    report = reading.report
    assert (report.status, report.pages) == ("ok", 4)
    assert report.detail == "2 of 4 pages without text; 1 attached PDF read, with 3 pages"
    assert report.characters == sum(len(text) for _, text in found)


def test_a_report_says_how_many_pages_are_unreadable(tmp_path: Path) -> None:
    spoilt = content([bytes(3 + (n + k) % 26 for k in range(60)) for n in range(20)], "F2")
    fonts = {"F1": HELVETICA, "F2": NO_MAP}
    pages = [content([f"This is page {n} of the book, which has some words on it."]) for n in range(17)]
    (tmp_path / "x.pdf").write_bytes(document([*pages, spoilt, spoilt, spoilt], fonts=fonts))
    (source,) = open_sources([str(tmp_path / "x.pdf")], OpenContext(DataConfig(), tmp_path / "cache"))
    report = source.units[0].extracted
    assert report is not None
    assert f"{report.status}: {report.detail}" == "partial: 3 of 20 pages unreadable (no character map)"
