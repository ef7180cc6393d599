"""Plain text and Markdown. Documents are blocks of whole paragraphs."""

from collections.abc import Iterator

from trfmoe_core.data.documents.records import Document, Unit
from trfmoe_core.data.formats.base import FORMATS, Format, ReadLog
from trfmoe_core.data.formats.decoding import open_text

_BLOCK_CHARACTERS = 1 << 22


@FORMATS.register("text")
class TextFormat(Format):
    """`.txt` and `.md`, also compressed."""

    suffixes = (".txt", ".md")
    compressible = True
    shared_by = "files"

    def read(self, unit: Unit, log: ReadLog) -> Iterator[Document]:
        """Yields the text in blocks of about 4 million characters that end at a paragraph, or at a line."""
        log.pages = 1
        rest = ""
        with open_text(unit, log) as file:
            while block := file.read(_BLOCK_CHARACTERS):
                rest += block
                if len(block) == _BLOCK_CHARACTERS:
                    border = max(rest.rfind("\n\n"), rest.rfind("\f")) + 1 or rest.rfind("\n") + 1 or len(rest)
                    yield Document(rest[:border])
                    rest = rest[border:]
            yield Document(rest)
