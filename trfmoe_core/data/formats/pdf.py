"""PDFs, whose text was extracted into the cache before (`trfmoe_core.data.pdf`). A document is a run of whole pages."""

from collections.abc import Iterator

from trfmoe_core.data.documents.clean import PAGE_BREAK
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
        """Yields the extracted text, in blocks of about 4 million characters that end between two pages."""
        log.pages = 0
        if unit.text_file is None:
            raise ValueError(f"{unit.file.path} was not extracted")
        rest, first = "", 1
        with unit.text_file.open(encoding="utf-8", newline="") as file:
            while block := file.read(_BLOCK_CHARACTERS):
                rest += block
                border = rest.rfind(PAGE_BREAK)
                if len(block) == _BLOCK_CHARACTERS and border > 0:
                    pages = rest[:border].count(PAGE_BREAK) + 1
                    yield Document(rest[:border], f"pages {first}-{first + pages - 1}")
                    first += pages
                    rest = rest[border + len(PAGE_BREAK) :]
        pages = rest.count(PAGE_BREAK) + 1
        log.pages = first + pages - 1
        yield Document(rest, f"pages {first}-{log.pages}")
