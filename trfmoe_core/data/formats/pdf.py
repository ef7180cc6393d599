"""PDFs, whose text was extracted into the cache before (`trfmoe_core.data.pdf`). A document is a run of whole pages."""

from collections.abc import Iterator

from trfmoe_core.data.documents.clean import PAGE_BREAK
from trfmoe_core.data.documents.paged import read_pages
from trfmoe_core.data.documents.records import Document, Unit
from trfmoe_core.data.formats.base import FORMATS, Format, ReadLog

_BLOCK_CHARACTERS = 1 << 22


@FORMATS.register("pdf")
class PdfFormat(Format):
    """`.pdf`."""

    suffixes = (".pdf",)
    shared_by = "files"

    @classmethod
    def recognises(cls, head: bytes) -> bool:
        """Returns True for a PDF's header. A few bytes may precede it, but then it may be a text about PDFs."""
        return head.startswith(b"%PDF-")

    def read(self, unit: Unit, log: ReadLog) -> Iterator[Document]:
        """Yields the extracted text, in blocks of about 4 million characters that end between two pages.

        The place of a document counts the pages of the file, blank ones too. Attached PDFs are documents of their own.
        """
        log.pages = 0
        if unit.text_file is None:
            raise ValueError(f"{unit.file.path} was not extracted")
        run = _Run()
        with unit.text_file.open(encoding="utf-8", newline="") as file:
            for name, number, text in read_pages(file):
                log.pages += 1
                if run.texts and (name != run.name or run.size + len(text) > _BLOCK_CHARACTERS):
                    yield run.document()
                    run = _Run()
                run.add(name, number, text)
        if run.texts:
            yield run.document()


class _Run:
    """Some pages of one text."""

    def __init__(self) -> None:
        self.name, self.first, self.last, self.size = "", 0, 0, 0
        self.texts: list[str] = []

    def add(self, name: str, number: int, text: str) -> None:
        self.name, self.first, self.last = name, self.first or number, number
        self.texts.append(text)
        self.size += len(text)

    def document(self) -> Document:
        place = f"pages {self.first}-{self.last}"
        return Document(PAGE_BREAK.join(self.texts), f"{place} of {self.name}" if self.name else place)
