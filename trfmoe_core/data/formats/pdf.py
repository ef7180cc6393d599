"""PDFs. A document is a run of whole pages; attached PDFs are documents of their own."""

from trfmoe_core.data.formats.base import FORMATS
from trfmoe_core.data.formats.extracted import ExtractedFormat


@FORMATS.register("pdf")
class PdfFormat(ExtractedFormat):
    """`.pdf`."""

    suffixes = (".pdf",)
    part = "page"

    @classmethod
    def recognises(cls, head: bytes) -> bool:
        """Returns True for a PDF's header. A few bytes may precede it, but then it may be a text about PDFs."""
        return head.startswith(b"%PDF-")
