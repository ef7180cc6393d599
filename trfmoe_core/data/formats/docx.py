"""DOCX documents of word processors. A document is a run of whole sections."""

from trfmoe_core.data.formats.base import FORMATS
from trfmoe_core.data.formats.extracted import ExtractedFormat


@FORMATS.register("docx")
class DocxFormat(ExtractedFormat):
    """`.docx` and `.docm`."""

    suffixes = (".docx", ".docm")
    part = "section"
