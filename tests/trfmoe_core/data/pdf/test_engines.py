from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hostile_files import page, pdf
from trfmoe_core.data.pdf import read_pages
from trfmoe_core.data.pdf.document_text import Options, read_pdf
from trfmoe_core.data.pdf.engines import EngineChoice, engine_version, engines_of, open_document
from trfmoe_core.data.pdf.reader import PdfLimits, PdfReader
from trfmoe_core.data.sources.find import find_files

CHOICES: tuple[EngineChoice, ...] = ("auto", "pdfium", "pypdf")


@pytest.mark.parametrize("engine", CHOICES)
def test_engines_agree_on_text_and_statuses(
    tmp_path: Path, write_pdf: Callable[..., Path], engine: EngineChoice
) -> None:
    middles = [["The quick experi-", f"ment of {word}", f"ends {word}."] for word in ("fox", "dog", "owl", "hen")]
    write_pdf(tmp_path / "a-good.pdf", [["Running head", *lines, str(n)] for n, lines in enumerate(middles)])
    write_pdf(tmp_path / "b-locked.pdf", [["secret text"]], password="key")
    write_pdf(tmp_path / "c-picture.pdf", [[]])
    (tmp_path / "d-torn.pdf").write_bytes(b"%PDF-1.7\nnothing that is an object")
    with PdfReader(PdfLimits(60, 1024), engine) as reader:
        results = [reader.read(file, file.path.with_suffix(".out")) for file in find_files([str(tmp_path)])]
    assert [result.status for result in results] == ["ok", "needs-password", "no-text", "broken"]
    pages = [f"The quick experiment of {word}\nends {word}." for word in ("fox", "dog", "owl", "hen")]
    assert (tmp_path / "a-good.out").read_text() == "\n\f".join(pages)
    assert results[0].detail == "8 running heads and page numbers left out; hyphens at line ends: 4 joined, 0 kept"
    with PdfReader(PdfLimits(60, 1024), engine, passwords=("wrong", "key")) as reader:
        (file,) = find_files([str(tmp_path / "b-locked.pdf")])
        assert reader.read(file, tmp_path / "b.out").status == "ok"
    assert (tmp_path / "b.out").read_text() == "secret text"


def test_auto_is_pdfium_first_and_every_version_counts() -> None:
    assert engines_of("auto") == ("pdfium", "pypdf")
    assert engine_version("pypdf").startswith("pypdf ")
    assert engine_version("auto") == f"{engine_version('pdfium')}, {engine_version('pypdf')}"


def test_what_pdfium_cannot_open_is_read_with_pypdf(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_no_pdfium(name: str, data: bytes, passwords: tuple[str, ...]) -> object:
        if name == "pdfium":
            raise ValueError("not for pdfium")
        return open_document("pypdf", data, passwords)

    data = pdf([page("A page of words.")])
    monkeypatch.setattr(read_pages, "open_document", open_no_pdfium)
    assert read_pdf(data, Options("auto", (), True, 60.0)).texts == ["A page of words."]
    alone = read_pdf(data, Options("pdfium", (), True, 60.0))
    assert (alone.status, alone.notes) == ("broken", ["ValueError: not for pdfium"])
