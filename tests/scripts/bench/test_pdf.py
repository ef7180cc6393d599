"""The PDF benchmark: that it counts words, and that it says why it is skipped."""

import json
import shutil
from pathlib import Path

import pytest

from scripts.bench import pdf as bench_pdf
from scripts.bench.pdf import Score, compare, words
from tests.hostile_files import page, pdf


def test_words_and_scores() -> None:
    assert words("A treat-\nment, a treatment") == {"a": 2, "treatment": 2}
    assert words("日本語 Text") == {"日": 1, "本": 1, "語": 1, "text": 1}
    score, left_out = compare(["one two three", "\ue001\ue002\ue003\ue004"], {1: "one two four two", 2: "unheard"})
    assert (score, left_out) == (Score(common=2, theirs=3, ours=4), 1)
    assert (round(score.recall, 3), score.precision) == (0.667, 0.5)


def test_without_the_other_program_it_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_pdf.shutil, "which", lambda name: None)
    bench_pdf.main(str(tmp_path), "pdftotext", ["auto"], True)
    assert json.loads(capsys.readouterr().out)["skipped"].startswith("pdftotext is not installed")


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="pdftotext (poppler-utils) is not installed")
def test_the_table_has_a_line_for_every_collection(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("papers", "letters"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.pdf").write_bytes(pdf([page(f"Some {name} with words on their page.")]))
    bench_pdf.main(str(tmp_path), "pdftotext", ["auto", "pypdf"], True)
    result = json.loads(capsys.readouterr().out)
    for collection in ("papers", "letters"):
        for engine in ("auto", "pypdf"):
            assert result[f"{collection} {engine}"] == "1.0000 / 1.0000"
            assert result[f"{collection} {engine} statuses"] == "1 ok"
    assert result["auto pages"] == 2
