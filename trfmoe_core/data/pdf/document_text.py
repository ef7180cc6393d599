"""From the bytes of one PDF to its clean text and a report, with the PDFs that are attached to it."""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from trfmoe_core.counts import counted
from trfmoe_core.data.documents.extracted import MAX_ERRORS, Reading
from trfmoe_core.data.pdf.engines import Document, EngineChoice, LockedError, file_errors
from trfmoe_core.data.pdf.pages import TidyPages, tidy
from trfmoe_core.data.pdf.placeholders import is_portfolio_notice, is_xfa_notice
from trfmoe_core.data.pdf.read_pages import MAX_CHARACTERS, BrokenError, PageReader, RawPages, TooLongError

_LETTERS_AND_DIGITS = re.compile(r"[^\W_]+")
MAX_DEPTH = 3
MAX_ATTACHMENTS = 1000
_NAMED = 3
_HEADER_BYTES = 1024
# A document of many pages with fewer letters and digits per page than this is a scan with stamps on it.
SCAN_PAGES, SCAN_CHARACTERS = 10, 8


@dataclass(frozen=True)
class Options:
    """How to read.

    Attributes:
        engine: pdfium, pypdf, or auto.
        passwords: tried on encrypted documents, after the empty one.
        drop_headers: whether to leave out running heads and page numbers.
        retry_s: seconds of processor time for pages that the first engine reads badly.
    """

    engine: EngineChoice
    passwords: tuple[str, ...]
    drop_headers: bool
    retry_s: float


def read_pdf(data: bytes, options: Options, *, depth: int = 0, seen: frozenset[str] = frozenset()) -> Reading:
    """Returns the reading of a document and of the PDFs attached to it.

    Args:
        data: the file.
        options: how to read.
        depth: number of documents around this one.
        seen: digests of the documents around this one, which are not read again.
    """
    try:
        reader = PageReader(options.engine, data, options.passwords, retry_s=options.retry_s)
    except LockedError:
        count = len(options.passwords)
        tried = f"none of {counted(count, 'password')} opens it" if count else "give {path: ..., passwords: FILE}"
        return Reading("needs-password", notes=[f"encrypted; {tried}"])
    except BrokenError as error:
        return Reading("broken", notes=[str(error)])
    try:
        try:
            raw = reader.read()
        except TooLongError:
            notes = [f"more than {MAX_CHARACTERS} characters of text"]
            return Reading("too-large", len(reader.document), notes=notes)
        reading = _judged(raw, options.drop_headers)
        attachments = _attachments(reader.document, file_errors(reader.name))
    finally:
        reader.close()
    if not attachments:
        return reading
    if is_portfolio_notice(raw.texts):
        reading.status, reading.texts = "no-text", []
        reading.notes = ["its page only says that it is a portfolio"]
    _read_attachments(reading, attachments, options, depth, seen | {hashlib.sha256(data).hexdigest()})
    return reading


def _judged(raw: RawPages, drop_headers: bool) -> Reading:
    """Returns the reading of a document's own pages."""
    num_pages = len(raw.texts)
    if is_xfa_notice(raw.texts, is_xfa=raw.is_xfa):
        return Reading("no-text", num_pages, notes=["XFA: the form's content is not in its pages; print it to a PDF"])
    tidied = tidy(raw.texts, drop_headers=drop_headers)
    lost = {number: f"unreadable ({reason})" for number, reason in raw.unreadable.items()} | raw.failed
    errors = [f"page {number + 1}: {lost[number]}" for number in sorted(lost)]
    notes = _losses(raw, num_pages)
    letters = sum(map(len, (run for text in tidied.texts for run in _LETTERS_AND_DIGITS.findall(text))))
    intact = num_pages - len(lost)
    is_text = any(letter.isalpha() for text in tidied.texts for letter in text)
    if not is_text or (intact >= SCAN_PAGES and letters < SCAN_CHARACTERS * intact):
        if lost:
            return Reading("broken", num_pages, notes=notes, page_errors=errors)
        found = (
            f"{letters} letters and digits on {counted(num_pages, 'page')}"
            if letters
            else f"{counted(num_pages, 'page')} without text"
        )
        return Reading("no-text", num_pages, notes=[f"{found}: scanned?" if num_pages else "no pages"])
    notes += _changes(tidied, intact)
    if raw.fields_cut:
        notes.append(f"{raw.fields_cut} form fields hold much more text than they show, which is left out")
    return Reading("partial" if lost else "ok", num_pages, tidied.texts, notes, errors)


def _losses(raw: RawPages, num_pages: int) -> list[str]:
    """Returns a note about the pages that are no text, by reason, and one about those that no engine could read."""
    notes = []
    if raw.unreadable:
        reasons = Counter(raw.unreadable.values()).most_common()
        named = [reason if len(reasons) == 1 else f"{count} {reason}" for reason, count in reasons]
        notes.append(f"{len(raw.unreadable)} of {counted(num_pages, 'page')} unreadable ({', '.join(named)})")
    if raw.failed:
        first = min(raw.failed)
        notes.append(
            f"{len(raw.failed)} of {counted(num_pages, 'page')} lost, first page {first + 1}: {raw.failed[first]}"
        )
    return notes


def _changes(tidied: TidyPages, num_pages: int) -> list[str]:
    """Returns notes about blank pages among `num_pages`, and about what was changed on the others."""
    blank = num_pages - sum(bool(text.strip()) for text in tidied.texts)
    notes = [f"{blank} of {counted(len(tidied.texts), 'page')} without text"] if blank > 0 else []
    if tidied.lines_lost:
        notes.append(f"{tidied.lines_lost} unreadable lines left out")
    if tidied.headers:
        notes.append(f"{tidied.headers} running heads and page numbers left out")
    if tidied.hyphens_joined or tidied.hyphens_kept:
        notes.append(f"hyphens at line ends: {tidied.hyphens_joined} joined, {tidied.hyphens_kept} kept")
    return notes


def _attachments(document: Document, errors: tuple[type[Exception], ...]) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    try:
        for attachment in document.attachments():
            found.append(attachment)
            if len(found) == MAX_ATTACHMENTS:
                break
    except errors:
        found.append(("a malformed attachment", b""))
    return found


def _read_attachments(
    reading: Reading, attachments: Sequence[tuple[str, bytes]], options: Options, depth: int, seen: frozenset[str]
) -> None:
    """Adds the attached PDFs to the reading, and notes what else is attached."""
    others = []
    for name, data in attachments:
        digest = hashlib.sha256(data).hexdigest()
        if digest in seen:
            continue
        seen |= {digest}
        if b"%PDF-" not in data[:_HEADER_BYTES] or depth >= MAX_DEPTH:
            others.append(name)
            continue
        inner = read_pdf(data, options, depth=depth + 1, seen=seen)
        reading.attached += [(name, inner), *((f"{name}/{below}", one) for below, one in inner.attached)]
    if reading.attached and depth == 0:
        reading.notes += _notes_on(reading.attached)
    if others:
        more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
        reading.notes.append(f"attachments not read: {', '.join(others[:_NAMED])}{more}")


def _notes_on(attached: Sequence[tuple[str, Reading]]) -> list[str]:
    """Returns a note that counts the attached PDFs with text, and one for each of the others and of the damaged."""
    good = [one for _, one in attached if one.texts]
    pages = sum(one.num_pages for one in good)
    notes = [f"{counted(len(good), 'attached PDF')} read, with {counted(pages, 'page')}"] if good else []
    for name, one in attached:
        if one.status != "ok":
            notes.append(f"attached {name}: {one.status}{': ' * bool(one.notes)}{one.notes[0] if one.notes else ''}")
    return notes[: 1 + MAX_ERRORS]
