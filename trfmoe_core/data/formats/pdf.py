"""PDFs. A document is a run of whole pages; attached PDFs are documents of their own."""

from trfmoe_core.data.formats.base import FORMATS
from trfmoe_core.data.formats.extracted import ExtractedFormat


@FORMATS.register("pdf")
class PdfFormat(ExtractedFormat):
    """`.pdf`."""

    suffixes = (".pdf",)
    part = "page"
