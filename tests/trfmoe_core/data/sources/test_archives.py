import shutil
import stat
import zipfile
from pathlib import Path

import pytest

from tests.hostile_files import page, pdf
from tests.trfmoe_core.data.markup.made import docx, epub, odt, paragraph
from trfmoe_core.config import DataConfig
from trfmoe_core.data.formats.reading import Reading
from trfmoe_core.data.sources import OpenContext, OpenedSource, open_sources
from trfmoe_core.data.sources import archives as archives_module


def opened(folder: Path, path: Path) -> OpenedSource:
    (source,) = open_sources([str(path)], OpenContext(DataConfig(), folder / "cache"))
    return source


def found(folder: Path, path: Path) -> dict[str, tuple[str, str]]:
    """Name -> (status, text) of everything that a path holds."""
    source = opened(folder, path)
    texts, reports = [], []
    for unit in source.units:
        reading = Reading(unit)
        texts.append((unit.file.shown, " ".join(document.text for document in reading)))
        reports.append(reading.report)
    by_name = dict(texts)
    return {
        report.path.removeprefix(f"{folder}/"): (report.status, by_name.get(report.path, ""))
        for report in source.reports(reports)
    }


def test_members_are_files_of_their_own_under_their_names_in_the_archive(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "loose.txt").write_text("the same text twice")
    link = zipfile.ZipInfo("link.txt")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "in" / "papers.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("deep/er/paper.pdf", pdf([page("a paper")]))
        file.writestr("../../up.txt", "never outside of the cache")
        file.writestr("letter.docx", docx(paragraph("a letter")))
        file.writestr("book.epub", epub({"one": "a book"}))
        file.writestr("page.html", "<p>a page<script>no</script>")
        file.writestr("essay.odt", odt("<text:p>an essay</text:p>"))
        file.writestr("twin.txt", "the same text twice")
        file.writestr("__MACOSX/._paper.pdf", "x")
        file.writestr("inner.zip", "x")
        file.writestr("film.mp4", "x")
        file.writestr(link, "/etc/hostname")
    expected = {
        "in/loose.txt": ("ok", "the same text twice"),
        "in/papers.zip!/deep/er/paper.pdf": ("ok", "a paper"),
        "in/papers.zip!/../../up.txt": ("ok", "never outside of the cache"),
        "in/papers.zip!/letter.docx": ("ok", "a letter"),
        "in/papers.zip!/book.epub": ("ok", "a book"),
        "in/papers.zip!/page.html": ("ok", "a page"),
        "in/papers.zip!/essay.odt": ("ok", "an essay"),
        "in/papers.zip!/twin.txt": ("duplicate", ""),
        "in/papers.zip!/__MACOSX/._paper.pdf": ("system-file", ""),
        "in/papers.zip!/inner.zip": ("unsupported", ""),
        "in/papers.zip!/film.mp4": ("unsupported", ""),
        "in/papers.zip!/link.txt": ("unsupported", ""),
    }
    assert found(tmp_path, tmp_path / "in") == expected
    outside = [path for path in tmp_path.rglob("*up*") if path.is_file()]
    assert outside == []
    # A second time nothing is unpacked, wherever the archive lies.
    (tmp_path / "in").rename(tmp_path / "at")
    unpacked = next((tmp_path / "cache" / archives_module.CACHE).glob("*/*.pdf"))
    before = unpacked.stat().st_mtime_ns
    again = found(tmp_path, tmp_path / "at")
    assert {name.replace("at/", "in/", 1): value for name, value in again.items()} == expected
    assert unpacked.stat().st_mtime_ns == before
    shutil.rmtree(tmp_path / "cache" / archives_module.CACHE)
    assert found(tmp_path, tmp_path / "at") == again


def test_bombs_and_broken_archives_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives_module, "FREE_BYTES", 1 << 20)
    (tmp_path / "in").mkdir()
    with zipfile.ZipFile(tmp_path / "in" / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("first.txt", "a text before it")
        file.writestr("zeros.txt", bytes(8 << 20))
    with zipfile.ZipFile(tmp_path / "in" / "spoilt.zip", "w") as file:
        file.writestr("good.txt", "good text")
        file.writestr("bad.txt", "spoilt text")
    spoilt = (tmp_path / "in" / "spoilt.zip").read_bytes().replace(b"spoilt text", b"spoilt_text", 1)
    (tmp_path / "in" / "spoilt.zip").write_bytes(spoilt)
    (tmp_path / "in" / "torn.zip").write_bytes(spoilt[:60])
    assert {name: status for name, (status, _) in found(tmp_path, tmp_path / "in").items()} == {
        "in/bomb.zip!/first.txt": "ok",
        "in/bomb.zip!/zeros.txt": "too-large",
        "in/spoilt.zip!/good.txt": "ok",
        "in/spoilt.zip!/bad.txt": "broken",
        "in/torn.zip": "broken",
    }
    assert sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.txt")) < 1 << 20
    monkeypatch.setattr(archives_module, "MAX_MEMBERS", 1)
    (tmp_path / "in" / "spoilt.zip").write_bytes(spoilt + b" ")
    assert found(tmp_path, tmp_path / "in")["in/spoilt.zip"] == ("broken", "")


def test_an_archive_of_documents_is_not_taken_for_one_of_them_and_a_document_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, data in (("a.docx", docx(paragraph("a letter"))), ("a.epub", epub({"one": "a book"}))):
        with zipfile.ZipFile(tmp_path / "in" / f"{name}.zip", "w", zipfile.ZIP_STORED) as file:
            file.writestr(name, data)
        (tmp_path / "in" / f"{name}.renamed.zip").write_bytes(data + b"another end")
    assert {name: text for name, (_, text) in found(tmp_path, tmp_path / "in").items()} == {
        "in/a.docx.renamed.zip": "a letter",
        "in/a.docx.zip!/a.docx": "a letter",
        "in/a.epub.renamed.zip": "a book",
        "in/a.epub.zip!/a.epub": "a book",
    }
