"""The report that the owner of the data gets for every file."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from trfmoe_core.atomic import write_text

Status = Literal[
    "ok", "partial", "no-text", "needs-password", "broken", "timeout", "too-large", "not-a-pdf", "unsupported",
    "empty", "unreadable", "changed", "duplicate", "system-file",
]  # fmt: skip


@dataclass(frozen=True)
class FileReport:
    """What became of one file.

    Attributes:
        path: where it lies, printable.
        kind: name of its format, or `other`.
        status: `ok`, `partial` (some text was lost, see `detail`), or why it gave no text.
        pages: pages with text for a PDF, documents for any other format.
        characters: characters of text after cleaning.
        detail: the reason in words; may be empty if the status is `ok`.
        page_errors: errors on single pages of a PDF, at most the first few.
    """

    path: str
    kind: str
    status: Status
    pages: int = 0
    characters: int = 0
    detail: str = ""
    page_errors: list[str] = field(default_factory=list)


def printable(path: Path | str) -> str:
    """Returns the path on one line, with control characters and undecodable bytes escaped."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in str(path)
    )


def shortened(name: object, most: int = 60) -> str:
    """Returns a name on one line and, if it is longer than `most` characters, without its middle."""
    text = printable(str(name)[: 4 * most] + str(name)[4 * most :][-4 * most :])
    half = (most - 3) // 2
    return text if len(text) <= most else f"{text[:half]}...{text[-half:]}"


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, at most 200 characters; its type's name if it has none."""
    lines = str(error).strip().splitlines()
    return shortened(lines[0] if lines else type(error).__name__, 200)


def write_reports(path: Path, files: Sequence[FileReport]) -> None:
    """Writes one line of JSON for every file, unless `path` has exactly these lines already."""
    text = "".join(json.dumps(asdict(report)) + "\n" for report in files)
    try:
        if path.read_text(encoding="utf-8") == text:
            return
    except (OSError, ValueError):
        pass
    write_text(path, text)


def moved(report: FileReport, path: Path) -> FileReport:
    """Returns the report of a file with the same bytes at another path."""
    return replace(report, path=printable(path))
