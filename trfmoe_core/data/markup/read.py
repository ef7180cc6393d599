"""Reads a document of any of the formats that are markup, cleans its text, and judges whether it is text at all."""

from collections.abc import Callable

from trfmoe_core.data.documents.clean import clean
from trfmoe_core.data.documents.extracted import Reading
from trfmoe_core.data.markup.docx import read_docx
from trfmoe_core.data.markup.epub import read_epub
from trfmoe_core.data.markup.html import read_html
from trfmoe_core.data.markup.odt import read_odt
from trfmoe_core.data.markup.result import MarkupText, UnreadableError

MAX_CHARACTERS = 1 << 26
_READERS: dict[str, Callable[[bytes], MarkupText]] = {
    "docx": read_docx,
    "epub": read_epub,
    "odt": read_odt,
}


def read_markup(kind: str, data: bytes, encoding: str = "") -> Reading:
    """Returns the reading of a document of the format `kind`. `encoding` is that of a web page, if it is known."""
    try:
        found = read_html(data, encoding) if kind == "html" else _READERS[kind](data)
    except UnreadableError as error:
        return Reading(error.status, notes=[error.detail])
    if sum(map(len, found.parts)) > MAX_CHARACTERS:
        return Reading("too-large", len(found.parts), notes=[f"more than {MAX_CHARACTERS} characters of text"])
    texts = [clean(part, normalization="nfc").replace("\f", "\n") for part in found.parts]
    notes = [f"{len(found.lost)} losses, first {found.lost[0]}"] if len(found.lost) > 1 else list(found.lost)
    if not any(letter.isalpha() for text in texts for letter in text):
        status = "broken" if found.lost else "no-text"
        return Reading(status, len(texts), notes=notes or ["it holds no letters"], page_errors=found.lost)
    return Reading("partial" if found.lost else "ok", len(texts), texts, notes, found.lost)
