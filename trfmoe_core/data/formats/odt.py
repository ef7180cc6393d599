"""ODT documents of word processors. A document is a run of whole sections."""

from trfmoe_core.data.formats.base import FORMATS
from trfmoe_core.data.formats.extracted import ExtractedFormat


@FORMATS.register("odt")
class OdtFormat(ExtractedFormat):
    """`.odt`."""

    suffixes = (".odt",)
    part = "section"
