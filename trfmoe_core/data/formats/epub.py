"""EPUB books. A document is a run of whole chapters."""

from trfmoe_core.data.formats.base import FORMATS
from trfmoe_core.data.formats.extracted import ExtractedFormat

# Where the name of the first member stands in a zip; its content follows.
_NAME_AT = 30


@FORMATS.register("epub")
class EpubFormat(ExtractedFormat):
    """`.epub`."""

    suffixes = (".epub",)
    part = "chapter"

    @classmethod
    def recognises(cls, head: bytes) -> bool:
        """Returns True for the first member that every EPUB has."""
        return head.startswith(b"PK") and head.startswith(b"mimetypeapplication/epub+zip", _NAME_AT)
