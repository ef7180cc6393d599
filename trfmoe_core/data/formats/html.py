"""Web pages, as one document each, without navigation, forms, scripts and hidden text."""

from trfmoe_core.data.formats.base import FORMATS
from trfmoe_core.data.formats.extracted import ExtractedFormat


@FORMATS.register("html")
class HtmlFormat(ExtractedFormat):
    """`.html`, `.htm` and `.xhtml`."""

    suffixes = (".html", ".htm", ".xhtml")
    part = "page"
