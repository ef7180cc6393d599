"""EPUB books. A document is a run of whole chapters."""

from trfmoe_core.data.formats.base import FORMATS
from trfmoe_core.data.formats.extracted import ExtractedFormat

_HEAD_BYTES = 128


@FORMATS.register("epub")
class EpubFormat(ExtractedFormat):
    """`.epub`."""

    suffixes = (".epub",)
    part = "chapter"

    @classmethod
    def recognises(cls, head: bytes) -> bool:
        """Returns True for the first member that every EPUB has."""
        return head.startswith(b"PK") and b"mimetypeapplication/epub+zip" in head[:_HEAD_BYTES]
