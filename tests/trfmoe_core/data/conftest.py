"""Small files of every kind, made on the spot."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

SENTENCES = "The quick brown fox number {n} jumps over lazy dog number {m} while owl {k} watches from its tree."


def prose(start: int, sentences: int) -> str:
    """English-looking text whose sentences are all different."""
    lines = [SENTENCES.format(n=n, m=n * 7 % 101, k=n * n % 89) for n in range(start, start + sentences)]
    return "\n\n".join("\n".join(lines[i : i + 4]) for i in range(0, len(lines), 4))


@pytest.fixture
def write_pdf() -> Callable[..., Path]:
    """Writes a PDF of one line list a page."""

    def write(path: Path, pages: list[list[str]], password: str | None = None) -> Path:
        from reportlab.pdfgen.canvas import Canvas

        canvas = Canvas(str(path), invariant=1, encrypt=password)
        for lines in pages:
            for row, line in enumerate(lines):
                canvas.drawString(50, 800 - 14 * row, line)
            if not lines:
                canvas.rect(50, 50, 400, 600, fill=1)
            canvas.showPage()
        canvas.save()
        return path

    return write


@pytest.fixture
def write_parquet() -> Callable[..., Path]:
    """Writes columns of values."""

    def write(path: Path, **columns: list[object]) -> Path:
        pq.write_table(pa.table(columns), path)
        return path

    return write


@pytest.fixture
def mixed_folder(tmp_path: Path, write_pdf: Callable[..., Path], write_parquet: Callable[..., Path]) -> Path:
    """One good file of every kind and its bad twins."""
    folder = tmp_path / "mixed"
    (folder / "deep").mkdir(parents=True)
    good = write_pdf(folder / "good.pdf", [prose(0, 8).split("\n"), prose(8, 8).split("\n")])
    write_pdf(folder / "locked.pdf", [["secret text"]], password="key")
    write_pdf(folder / "picture.pdf", [[]])
    (folder / "torn.pdf").write_bytes(good.read_bytes()[:700])
    (folder / "page.pdf").write_text("<html>not found</html>")
    (folder / "empty.pdf").touch()
    (folder / "copy.PDF").write_bytes(good.read_bytes())
    write_parquet(folder / "good.parquet", text=[prose(100, 8), None, prose(108, 8)])
    write_parquet(folder / "columns.parquet", body=["x"], url=["y"])
    write_parquet(folder / "numbers.parquet", text=[1, 2])
    (folder / "torn.parquet").write_bytes((folder / "good.parquet").read_bytes()[:-30])
    lines = [json.dumps({"text": prose(200, 8)}), "{broken", "[1]", json.dumps({"body": "x"}), ""]
    (folder / "some.jsonl").write_text("\n".join(lines))
    (folder / "none.jsonl").write_text("{}\n")
    (folder / "good.txt").write_text(prose(300, 8))
    (folder / "deep" / "latin.md").write_bytes(("Gr\xfc\xdfe aus K\xf6ln\n\n" + prose(400, 8)).encode("latin-1"))
    (folder / "image.png").write_bytes(b"\x89PNG")
    return folder
