"""DOCX documents of word processors. A document is a run of whole sections."""

from trfmoe_core.data.formats.base import FORMATS
from trfmoe_core.data.formats.extracted import ExtractedFormat


@FORMATS.register("docx")
class DocxFormat(ExtractedFormat):
    """`.docx` and `.docm`."""

    suffixes = (".docx", ".docm")
    part = "section"

    @classmethod
    def recognises(cls, head: bytes) -> bool:
        """Returns True for a zip with a member in Word's folder among its first ones."""
        return head.startswith(b"PK") and (b"word/_rels/" in head or b"word/document.xml" in head)
