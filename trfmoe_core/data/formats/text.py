"""Plain text and Markdown in UTF-8, or in UTF-16 with a byte order mark. Documents are blocks of whole paragraphs."""

import codecs
import io
from collections.abc import Iterator

from trfmoe_core.data.documents.records import Document, Unit
from trfmoe_core.data.formats.base import FORMATS, Format, ReadLog
from trfmoe_core.data.formats.compression import Decompressed

_BLOCK_BYTES = 1 << 22
_BUFFER_BYTES = 1 << 16


@FORMATS.register("text")
class TextFormat(Format):
    """`.txt` and `.md`, also compressed."""

    suffixes = (".txt", ".md")
    compressible = True
    shared_by = "files"

    def read(self, unit: Unit, log: ReadLog) -> Iterator[Document]:
        """Yields the text in blocks of about 4 MiB that end at a paragraph, or at a line if there is none."""
        log.pages = 1
        rest, replaced = "", 0
        with Decompressed(unit.file) as raw, io.BufferedReader(raw, _BUFFER_BYTES) as file:
            wide = file.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
            decoder = codecs.getincrementaldecoder("utf-16" if wide else "utf-8-sig")("replace")
            while block := file.read(_BLOCK_BYTES):
                last = len(block) < _BLOCK_BYTES
                text = decoder.decode(block, final=last)
                replaced += text.count("\ufffd") - block.count("\ufffd".encode())
                rest += text
                if not last:
                    border = max(rest.rfind("\n\n"), rest.rfind("\f")) + 1 or rest.rfind("\n") + 1 or len(rest)
                    yield Document(rest[:border])
                    rest = rest[border:]
            problem = raw.problem
        yield Document(rest + decoder.decode(b"", final=True))
        if problem:
            log.fail(*problem)
        if replaced > 0:
            log.fail("partial", f"{replaced} places are no Unicode and were replaced")
