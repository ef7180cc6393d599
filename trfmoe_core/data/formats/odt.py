"""ODT documents of word processors. A document is a run of whole sections."""

from trfmoe_core.data.formats.base import FORMATS
from trfmoe_core.data.formats.extracted import ExtractedFormat

# Where the name of the first member stands in a zip; its content follows.
_NAME_AT = 30


@FORMATS.register("odt")
class OdtFormat(ExtractedFormat):
    """`.odt`."""

    suffixes = (".odt",)
    part = "section"

    @classmethod
    def recognises(cls, head: bytes) -> bool:
        """Returns True for the first member that every ODT has."""
        return head.startswith(b"PK") and head.startswith(b"mimetypeapplication/vnd.oasis.opendocument.text", _NAME_AT)
