"""Cleans the raw text of pages: joins hyphenated words, drops broken glyphs, running heads and page numbers."""

import re
from collections import Counter
from collections.abc import Sequence

from trfmoe_core.data.documents.clean import PAGE_BREAK, clean

# Characters for glyphs without a meaning: U+FFFD, private use, and generated glyph names.
_BROKEN = re.compile(r"[\ufffd\ue000-\uf8ff]|/(?:g|gid|cid|uni|index|glyph)\d{1,6}\b|\(cid:\d{1,6}\)")
_BROKEN_RUN = re.compile(rf"(?:(?:{_BROKEN.pattern})\s?){{3,}}")
_MAX_BROKEN = 0.3
_EDGE_LINES = 2
_MAX_HEADER = 80
_NEAR = 2
_MIN_REPEATS = 3
_NUMBER = re.compile(r"(?<![\d.,])[0-9]{1,6}(?![\d]|[.,]\d)")
_ROMAN = re.compile(r"[-–—.\[\]() ]*[ivxlc]+[-–—.\[\]() ]*")


def tidy(pages: Sequence[str], *, drop_headers: bool) -> tuple[list[str], list[str]]:
    """Returns the clean pages, and a line about every page that was dropped and is empty now.

    Words that are hyphenated at line ends are joined. Runs of broken glyphs are removed, and pages that consist of
    them are dropped. With `drop_headers`, lines at the top and bottom that repeat on nearby pages are removed too.
    """
    tidied, dropped = [], []
    for number, page in enumerate(pages, start=1):
        broken = len(_BROKEN.findall(page))
        if broken and broken > _MAX_BROKEN * (broken + sum(letter.isalnum() for letter in _BROKEN.sub("", page))):
            dropped.append(f"page {number}: {broken} broken glyphs, no text to speak of")
            page = ""
        text = clean(_BROKEN_RUN.sub(" ", page), join_hyphens=True)
        tidied.append(text.replace("\f", "\n").strip("\n"))
    if drop_headers:
        tidied = _without_headers(tidied)
    return tidied, dropped


def join(pages: Sequence[str]) -> str:
    """Returns the pages that are not blank as one text with page breaks."""
    return PAGE_BREAK.join(page for page in pages if page.strip())


def _without_headers(pages: list[str]) -> list[str]:
    """Removes running heads and page numbers: short lines at a page's edge that are on nearby pages too."""
    edges = [_edge_lines(page.split("\n"), number) for number, page in enumerate(pages)]
    forms = [set().union(*lines.values()) for lines in edges]
    counts = Counter(form for page_forms in forms for form in page_forms)
    result = []
    for number, page in enumerate(pages):
        near = set().union(*forms[max(0, number - _NEAR) : number], *forms[number + 1 : number + 1 + _NEAR])
        repeated = {form for form in near if counts[form] >= _MIN_REPEATS}
        kept = [
            line for index, line in enumerate(page.split("\n")) if repeated.isdisjoint(edges[number].get(index, ()))
        ]
        left = "\n".join(kept).strip("\n")
        # Pages that would become empty, such as copies of a form, are kept as they are.
        result.append(left if any(letter.isalpha() for letter in left) else page)
    return result


def _edge_lines(lines: Sequence[str], page: int) -> dict[int, set[str]]:
    """Returns the first and last lines that may be running heads, by line index, each in its comparable forms.

    Two lines have a form in common if they are equal, or equal but for one number that grows with the page number.
    """
    full = [index for index, line in enumerate(lines) if line.strip()]
    found = {}
    for index in dict.fromkeys([*full[:_EDGE_LINES], *full[-_EDGE_LINES:]]):
        line = " ".join(lines[index].casefold().split())
        if len(line) > _MAX_HEADER:
            continue
        forms = {f"{line[: at.start()]}#{int(at.group()) - page}{line[at.end() :]}" for at in _NUMBER.finditer(line)}
        if any(letter.isalpha() for letter in line):
            forms.add("roman" if _ROMAN.fullmatch(line) else line)
        found[index] = forms
    return found
