"""`trfmoe bench data`: how fast files become tokens and batches.

PDFs: the benchmark makes books of set text and extracts them into an empty cache with one worker process, with two and
with one a core, in turn; the best repetition counts, and the start of the workers is part of it. These are wall times,
so they need a quiet machine. `pdf_parent_share` is the share of time that only the parent works, which more workers do
not shorten. Tokens and batches: `tokens.py`.
"""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

from scripts.bench.measure import show
from scripts.bench.tokens import measure_loader, measure_tokens
from trfmoe_core.data.documents.records import SourceFile
from trfmoe_core.data.pdf.engines import EngineChoice
from trfmoe_core.data.pdf.extract import Extraction, extract_all
from trfmoe_core.data.pdf.reader import PdfLimits
from trfmoe_core.data.sources.find import find_files

BOOKS, PAGES, QUICK_PAGES = 8, 40, 10
REPEATS = 3
LINES_A_PAGE = 46


def write_books(folder: Path, pages: int) -> list[SourceFile]:
    """Writes books of `pages` pages of set text; no two pages are the same."""
    from reportlab.pdfgen.canvas import Canvas

    for book in range(BOOKS):
        canvas = Canvas(str(folder / f"book-{book}.pdf"), invariant=1)
        for page in range(pages):
            canvas.setFont("Times-Roman", 11)
            for line in range(LINES_A_PAGE):
                number = (book * pages + page) * LINES_A_PAGE + line
                words = " ".join(f"word{number * 7919 % (97 + k)}" for k in range(11))
                canvas.drawString(60, 790 - 16 * line, f"{number} {words}")
            canvas.showPage()
        canvas.save()
    return find_files([str(folder)])


def measure_pdfs(pages: int, engine: EngineChoice) -> dict[str, Any]:
    """Returns pages a second with all cores and with one, and how the work scales from one worker to two."""
    best: dict[int, float] = {}
    parent = 0.0
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="trfmoe-bench-") as scratch:
        (Path(scratch) / "in").mkdir()
        files = write_books(Path(scratch) / "in", pages)
        for repeat in range(REPEATS):
            for workers in {1, 2, cores}:
                how = Extraction(engine, PdfLimits(600, 2048), workers=workers)
                started, busy = time.monotonic(), time.process_time()
                texts = extract_all(files, how, Path(scratch) / f"cache-{repeat}-{workers}")
                taken = time.monotonic() - started
                parent = max(parent, (time.process_time() - busy) / taken)
                assert all(text.status == "ok" and text.pages == pages for text in texts.values())
                best[workers] = min(best.get(workers, taken), taken)
    total = BOOKS * pages
    return {
        "pdf_engine": engine,
        "pdf_pages": total,
        "pdf_pages_per_s": round(total / best[cores], 1),
        "pdf_pages_per_s_one_core": round(total / best[1], 1),
        "pdf_scaling_two_cores": round(best[1] / best[2], 2),
        "pdf_parent_share": round(parent, 3),
        "cores": cores,
    }


def main(quick: bool, engine: EngineChoice, tokenizer: str | None, as_json: bool) -> None:
    """Measures and shows.

    Args:
        quick: Fewer pages and less text.
        engine: Of PDFs.
        tokenizer: Folder or name; None: one is trained on the text.
        as_json: Whether to print one JSON object as the last line.
    """
    result = measure_pdfs(QUICK_PAGES if quick else PAGES, engine)
    show(result | measure_tokens(quick, tokenizer) | measure_loader(quick), as_json)
