"""DOCX documents of word processors. A document is a run of whole sections."""

from trfmoe_core.data.formats.base import FORMATS
from trfmoe_core.data.formats.extracted import ExtractedFormat

# Where the name of the first member stands in a zip.
_NAME_AT = 30
_FIRST = (b"[Content_Types].xml", b"_rels/.rels", b"docProps/", b"word/", b"customXml/")


@FORMATS.register("docx")
class DocxFormat(ExtractedFormat):
    """`.docx` and `.docm`."""

    suffixes = (".docx", ".docm")
    part = "section"

    @classmethod
    def recognises(cls, head: bytes) -> bool:
        """Returns True for a zip that begins with a part of an Office document and holds Word's folder.

        The first name matters because an archive of such documents holds their parts too.
        """
        first = head.startswith(_FIRST, _NAME_AT)
        return head.startswith(b"PK") and first and any(name in head for name in (b"word/_rels/", b"word/document.xml"))
