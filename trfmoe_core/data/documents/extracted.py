"""What reading a file gives, in the process that reads it, and the form in which other processes get it."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

from trfmoe_core.data.documents.clean import PAGE_BREAK
from trfmoe_core.data.documents.paged import join_texts

MAX_ERRORS = 20


@dataclass
class Reading:
    """What became of one document, and of those attached to it. Pages are chapters or sections in other formats.

    Attributes:
        status: as in reports.
        num_pages: pages of the document.
        texts: its clean pages, if they are text.
        notes: remarks, the most important ones first.
        page_errors: a line about every page that is lost.
        attached: name and reading of every attached PDF, also of those attached to them.
    """

    status: str
    num_pages: int = 0
    texts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    page_errors: list[str] = field(default_factory=list)
    attached: list[tuple[str, "Reading"]] = field(default_factory=list)


def as_result(reading: Reading, out: str) -> dict[str, Any]:
    """Writes the text to the file `out`, if there is any, and returns the fields of a `ExtractedText`."""
    with_text = [("", reading), *((name, one) for name, one in reading.attached if one.texts)]
    texts = [(name, one.texts) for name, one in with_text]
    full = sum(bool(page.strip()) for _, pages in texts for page in pages)
    errors = reading.page_errors + [f"{name}: {error}" for name, one in reading.attached for error in one.page_errors]
    status = reading.status
    if full and (len(with_text) > 1 or status in ("ok", "partial")):
        lossy = [one.status for _, one in reading.attached if one.status not in ("ok", "no-text")]
        status = "partial" if lossy or status not in ("ok", "no-text") else "ok"
    content = join_texts(texts) if full else ""
    data = content.encode("utf-8", "replace")
    if data:
        with open(out, "wb") as file:  # noqa: PTH123
            file.write(data)
    return result(
        status,
        sum(one.num_pages for _, one in with_text),
        pages=full,
        characters=sum(len(PAGE_BREAK.join(filter(str.strip, pages))) for _, pages in texts),
        size=len(data),
        text_sha256=hashlib.sha256(data).hexdigest() if data else "",
        detail="; ".join(reading.notes),
        page_errors=errors,
    )


def result(status: str, num_pages: int = 0, **more: Any) -> dict[str, Any]:
    """Returns the fields of a `ExtractedText`."""
    blank = {"pages": 0, "characters": 0, "size": 0, "text_sha256": "", "detail": "", "page_errors": []}
    fields = {"status": status, "num_pages": num_pages, **blank, **more}
    fields["page_errors"] = fields["page_errors"][:MAX_ERRORS]
    return fields
