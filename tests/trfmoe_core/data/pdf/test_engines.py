import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from trfmoe_core.data.pdf.engines import EngineName, choose_engine, engine_version
from trfmoe_core.data.pdf.reader import PdfLimits, PdfReader
from trfmoe_core.data.sources.find import find_files

HAS_PDFIUM = importlib.util.find_spec("pypdfium2") is not None
ENGINES = [
    "pypdf",
    pytest.param("pdfium", marks=pytest.mark.skipif(not HAS_PDFIUM, reason="pypdfium2 is not installed")),
]


@pytest.mark.parametrize("engine", ENGINES)
def test_engines_agree_on_text_and_statuses(tmp_path: Path, write_pdf: Callable[..., Path], engine: EngineName) -> None:
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
    with PdfReader(PdfLimits(60, 1024), engine, passwords=("wrong", "key")) as reader:
        (file,) = find_files([str(tmp_path / "b-locked.pdf")])
        assert reader.read(file, tmp_path / "b.out").status == "ok"
    assert (tmp_path / "b.out").read_text() == "secret text"


def test_auto_takes_pdfium_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_engine("auto") == ("pdfium" if HAS_PDFIUM else "pypdf")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert choose_engine("auto") == "pypdf"
    assert choose_engine("pdfium") == "pdfium"
    assert engine_version("pypdf").startswith("pypdf ")
