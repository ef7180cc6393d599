"""Plain text and Markdown: UTF-8, or UTF-16 with its mark; documents are blocks of whole paragraphs."""

import codecs
from collections.abc import Iterator

from trfmoe_core.data.documents import Document, Unit
from trfmoe_core.data.formats.base import FORMATS, Log, open_plain

_BLOCK_BYTES = 1 << 22


class TextFormat:
    """`.txt` and `.md`."""

    suffixes: tuple[str, ...] = (".txt", ".md")
    packed = True
    cleaned = False

    def read(self, unit: Unit, log: Log) -> Iterator[Document]:
        """Yields the text in blocks of about 4 MiB that end at a paragraph, or else at a line."""
        log.pages = 1
        rest, replaced = "", 0
        with open_plain(unit.file.path) as file:
            wide = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
            file.seek(0)
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
        yield Document(rest + decoder.decode(b"", final=True))
        if replaced > 0:
            log.status, log.detail = "partial", f"{replaced} places are no Unicode and were replaced"


FORMATS.add("text", TextFormat())
