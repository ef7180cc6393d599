"""ODT documents of word processors. A document is a run of whole sections."""

from trfmoe_core.data.formats.base import FORMATS
from trfmoe_core.data.formats.extracted import ExtractedFormat

_HEAD_BYTES = 128


@FORMATS.register("odt")
class OdtFormat(ExtractedFormat):
    """`.odt`."""

    suffixes = (".odt",)
    part = "section"

    @classmethod
    def recognises(cls, head: bytes) -> bool:
        """Returns True for the first member that every ODT has."""
        return head.startswith(b"PK") and b"mimetypeapplication/vnd.oasis.opendocument.text" in head[:_HEAD_BYTES]
