"""EPUB books. A document is a run of whole chapters."""

from trfmoe_core.data.formats.base import FORMATS
from trfmoe_core.data.formats.extracted import ExtractedFormat


@FORMATS.register("epub")
class EpubFormat(ExtractedFormat):
    """`.epub`."""

    suffixes = (".epub",)
    part = "chapter"
