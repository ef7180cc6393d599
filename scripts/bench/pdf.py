"""`trfmoe bench pdf`: how much of the text of PDFs we have, measured against another program, and how fast.

Every folder with PDFs is a collection. `recall` is the share of the other program's words that we have, `precision` the
share of our words that it has, both as multisets and weighted by words. Hyphens count as nothing, so that neither is
blamed for how it treats line ends, and running heads stay in. Pages on which the other program's own text is unreadable
by our judgement are left out and counted, for a match with rubbish would be no merit.
"""

import re
import resource
import shutil
import subprocess
import tempfile
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from scripts.bench.measure import show
from trfmoe_core.data.documents.paged import read_pages
from trfmoe_core.data.documents.records import SourceFile
from trfmoe_core.data.pdf.damage.judge import judge
from trfmoe_core.data.pdf.engines import EngineChoice
from trfmoe_core.data.pdf.extract import Extraction, extract_all, text_path
from trfmoe_core.data.pdf.reader import PdfLimits
from trfmoe_core.data.sources.find import find_files
from trfmoe_core.errors import DataError

ENGINES: tuple[EngineChoice, ...] = ("auto", "pdfium", "pypdf")
_LIMITS = PdfLimits(60, 2048)
_REFERENCE_TIMEOUT_S = 60
_WORD = re.compile(r"[^\W_]+")
_HYPHEN = re.compile(r"(?<=\w)[-\u2010\u2011\u00ad]\s*(?=\w)")
_FIRST_ASIAN = "\u2e80"
_WORST = 5


@dataclass
class Score:
    """Words in common, words of the other program and our words, of some files."""

    common: int = 0
    theirs: int = 0
    ours: int = 0

    def add(self, other: "Score") -> None:
        """Adds the words of another score."""
        self.common, self.theirs, self.ours = (
            self.common + other.common,
            self.theirs + other.theirs,
            self.ours + other.ours,
        )

    @property
    def recall(self) -> float:
        """Share of their words that we have."""
        return self.common / self.theirs if self.theirs else 1.0

    @property
    def precision(self) -> float:
        """Share of our words that they have."""
        return self.common / self.ours if self.ours else 1.0


@dataclass
class Row:
    """What was measured of one collection with one engine."""

    score: Score = field(default_factory=Score)
    statuses: Counter[str] = field(default_factory=Counter)
    worst: list[tuple[int, str]] = field(default_factory=list)


def words(text: str) -> Counter[str]:
    """Returns the words of a text without case; every letter of scripts without blanks is a word."""
    folded = _HYPHEN.sub("", unicodedata.normalize("NFKC", text).casefold())
    found: Counter[str] = Counter()
    for word in _WORD.findall(folded):
        if word[0] >= _FIRST_ASIAN:
            found.update(word)
        else:
            found[word] += 1
    return found


def reference_pages(path: Path) -> list[str]:
    """Returns what pdftotext reads on every page; empty if it cannot open the file in time."""
    try:
        done = subprocess.run(
            ["pdftotext", "-enc", "UTF-8", str(path), "-"],
            capture_output=True,
            timeout=_REFERENCE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return []
    return done.stdout.decode("utf-8", "replace").split("\f")[:-1]


def compare(theirs: Sequence[str], ours: dict[int, str]) -> tuple[Score, int]:
    """Returns the score of a file, and how many of their pages are left out because they are unreadable.

    Args:
        theirs: text of every page.
        ours: text of pages, by number from 1.
    """
    score, left_out = Score(), 0
    our_words: Counter[str] = Counter()
    their_words: Counter[str] = Counter()
    for number, page in enumerate(theirs, start=1):
        if judge(page).readable:
            their_words += words(page)
            our_words += words(ours.get(number, ""))
        else:
            left_out += 1
    score.common = (their_words & our_words).total()
    score.theirs, score.ours = their_words.total(), our_words.total()
    return score, left_out


def measure(files: Sequence[SourceFile], root: Path, engine: EngineChoice, scratch: Path) -> dict[str, Any]:
    """Returns the results of one engine: a row for every collection, pages, processor seconds and memory."""
    how = Extraction(engine, _LIMITS, drop_headers=False, workers=1)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = extract_all(files, how, scratch)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    rows: dict[str, Row] = defaultdict(Row)
    left_out = 0
    for file in files:
        text, row = found[file.sha256], rows[str(file.path.parent.relative_to(root))]
        row.statuses[text.status] += 1
        path = text_path(file.sha256, how, scratch) if text.size else None
        score, unreadable = compare(reference_pages(file.path), dict(_own_pages(path)))
        left_out += unreadable
        row.score.add(score)
        row.worst.append((score.theirs + score.ours - 2 * score.common, file.path.name))
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "rows": rows,
        "pages": sum(text.num_pages for text in found.values()),
        "processor_s": seconds,
        "memory_mb": after.ru_maxrss >> 10,
        "left_out": left_out,
    }


def _own_pages(path: Path | None) -> Iterator[tuple[int, str]]:
    """Yields number and text of the document's own pages, without those of attachments."""
    if path is None:
        return
    with path.open(encoding="utf-8", newline="") as file:
        for name, number, text in read_pages(file):
            if not name:
                yield number, text


def table(results: dict[EngineChoice, dict[str, Any]]) -> dict[str, Any]:
    """Returns the results as named values: recall / precision for every collection and engine."""
    shown: dict[str, Any] = {}
    collections = sorted({name for result in results.values() for name in result["rows"]})
    for collection in collections:
        for engine, result in results.items():
            row: Row = result["rows"][collection]
            prefix = f"{collection} {engine}"
            shown[prefix] = f"{row.score.recall:.4f} / {row.score.precision:.4f}"
            shown[f"{prefix} statuses"] = ", ".join(f"{count} {name}" for name, count in row.statuses.most_common())
            worst = [name for off, name in sorted(row.worst, reverse=True)[:_WORST] if off]
            shown[f"{prefix} most different"] = ", ".join(worst) or "none"
    for engine, result in results.items():
        shown[f"{engine} pages"] = result["pages"]
        shown[f"{engine} pages a processor second"] = round(result["pages"] / max(result["processor_s"], 1e-9), 1)
        shown[f"{engine} memory_mb"] = result["memory_mb"]
        shown[f"{engine} unreadable reference pages"] = result["left_out"]
    return shown


def main(folder: str, against: Literal["pdftotext"], engines: Sequence[EngineChoice], as_json: bool) -> None:
    """Measures and shows.

    Args:
        folder: the PDFs; every folder in it is a collection.
        against: the other program.
        engines: ours.
        as_json: whether to print one JSON object as the last line.

    Raises:
        DataError: there are no PDFs.
    """
    if shutil.which(against) is None:
        show({"skipped": f"{against} is not installed; it is in the package poppler-utils"}, as_json)
        return
    root = Path(folder).expanduser()
    files = [file for file in find_files([folder]) if file.kind == "pdf" and file.report is None]
    if not files:
        raise DataError(f"{folder}: no PDFs below it; give a folder with some")
    with tempfile.TemporaryDirectory(prefix="trfmoe-bench-") as scratch:
        show(table({engine: measure(files, root, engine, Path(scratch)) for engine in engines}), as_json)
