"""What the way from files to tokens manages: `python -m scripts.bench.data [--quick] [--json]`.

PDFs: books of set text are made on the spot and extracted into an empty cache with one worker process and with two,
in turn; the best of the repetitions counts, workers' start included. Wall time, so it wants a quiet machine: the
parent's share of the processor time says how much of it cannot be shared out. Tokens and batches: `bench_tokens`.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

from scripts.bench.tokens import measure_loader, measure_tokens
from scripts.output import Output
from trfmoe_core.data.documents.records import SourceFile
from trfmoe_core.data.pdf.engines import choose_engine
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


def measure_pdfs(pages: int, engine: Literal["auto", "pypdf", "pdfium"]) -> dict[str, Any]:
    """Returns pages a second with all cores and with one, and how the work scales from one worker to two."""
    chosen = choose_engine(engine)
    best: dict[int, float] = {}
    parent = 0.0
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="trfmoe-bench-") as scratch:
        (Path(scratch) / "in").mkdir()
        files = write_books(Path(scratch) / "in", pages)
        for repeat in range(REPEATS):
            for workers in {1, 2, cores}:
                how = Extraction(chosen, PdfLimits(600, 2048), workers=workers)
                started, busy = time.monotonic(), time.process_time()
                texts = extract_all(files, how, Path(scratch) / f"cache-{repeat}-{workers}")
                taken = time.monotonic() - started
                parent = max(parent, (time.process_time() - busy) / taken)
                assert all(text.status == "ok" and text.pages == pages for text in texts.values())
                best[workers] = min(best.get(workers, taken), taken)
    total = BOOKS * pages
    return {
        "pdf_engine": chosen,
        "pdf_pages": total,
        "pdf_pages_per_s": round(total / best[cores], 1),
        "pdf_pages_per_s_one_core": round(total / best[1], 1),
        "pdf_scaling_two_cores": round(best[1] / best[2], 2),
        "pdf_parent_share": round(parent, 3),
        "cores": cores,
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer pages")
    parser.add_argument("--engine", default="pypdf", choices=["auto", "pypdf", "pdfium"])
    parser.add_argument("--tokenizer", help="folder or name; without it one is trained on the text")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = parser.parse_args()
    output = Output(options.json)
    result = measure_pdfs(QUICK_PAGES if options.quick else PAGES, options.engine)
    result |= measure_tokens(options.quick, options.tokenizer) | measure_loader(options.quick)
    for name, value in result.items():
        output.line(f"{name:34}{value}")
    output.result({"outcome": "completed", **result, "exit_code": 0})


if __name__ == "__main__":
    main()
