"""The layout of a text file with pages: blank pages keep their place, so that pages can be counted.

Pages end at `PAGE_BREAK`. A file may hold several texts, each after a line with its name; the first has none.
"""

from collections.abc import Iterator, Sequence
from typing import TextIO

from trfmoe_core.data.documents.clean import PAGE_BREAK

TEXT_BREAK = "\x1c"
"""Clean text has no such character."""
_BLOCK_CHARACTERS = 1 << 22


def join_texts(texts: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Returns the content of a file with these texts: name and pages of each."""
    first, *others = (PAGE_BREAK.join(pages) for _, pages in texts)
    names = (" ".join(name.split()) for name, _ in texts[1:])
    return first + "".join(f"{TEXT_BREAK}{name}\n{text}" for name, text in zip(names, others, strict=True))


def read_pages(file: TextIO) -> Iterator[tuple[str, int, str]]:
    """Yields name of its text, number from 1 and text of every page that is not blank, in constant memory."""
    name, number, rest = "", 1, ""
    while True:
        block = file.read(_BLOCK_CHARACTERS)
        rest += block
        while True:
            page_end, text_end = rest.find(PAGE_BREAK), rest.find(TEXT_BREAK)
            if text_end >= 0 and (page_end < 0 or text_end < page_end):
                line_end = rest.find("\n", text_end)
                if line_end < 0 and block:
                    break
                if rest[:text_end].strip():
                    yield name, number, rest[:text_end]
                name, number, rest = rest[text_end + 1 : line_end], 1, rest[line_end + 1 :]
            elif page_end >= 0:
                if rest[:page_end].strip():
                    yield name, number, rest[:page_end]
                number, rest = number + 1, rest[page_end + len(PAGE_BREAK) :]
            else:
                break
        if not block:
            if rest.strip():
                yield name, number, rest
            return
