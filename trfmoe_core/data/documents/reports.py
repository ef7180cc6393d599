"""What is said about every file of a node's data."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from trfmoe_core.atomic import write_text

Status = Literal[
    "ok",
    "partial",
    "no-text",
    "needs-password",
    "broken",
    "timeout",
    "too-large",
    "not-a-pdf",
    "unsupported",
    "empty",
    "unreadable",
    "changed",
    "duplicate",
]


@dataclass(frozen=True)
class FileReport:
    """What happened to one file.

    Attributes:
        path: where it lies, safe to print (`printable`).
        kind: its format, or `other`.
        status: `ok`, `partial` (some of its text was lost, see `detail`), or why there is no text of it.
        pages: pages of a PDF that gave text, documents of any other kind.
        characters: characters of text after cleaning.
        detail: the reason in words; empty for `ok` files without anything to say.
        page_errors: what went wrong on single pages of a PDF, the first few.
    """

    path: str
    kind: str
    status: Status
    pages: int = 0
    characters: int = 0
    detail: str = ""
    page_errors: list[str] = field(default_factory=list)


def printable(path: Path | str) -> str:
    """Returns the path with control characters and undecodable bytes escaped, so that it fits on one line."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in str(path)
    )


def write_reports(path: Path, files: Sequence[FileReport]) -> None:
    """Writes one JSON object a file, unless they stand there already."""
    text = "".join(json.dumps(asdict(report)) + "\n" for report in files)
    try:
        if path.read_text(encoding="utf-8") == text:
            return
    except (OSError, ValueError):
        pass
    write_text(path, text)


def moved(report: FileReport, path: Path) -> FileReport:
    """Returns the report of the same bytes at another place."""
    return replace(report, path=printable(path))
