"""The text of pages as engines give it, made into the text of a book: the same for every engine."""

import re
from collections import Counter
from collections.abc import Sequence

from trfmoe_core.data.documents.clean import PAGE_BREAK, clean

# Characters that stand for glyphs without a meaning: replacement, private use, and names of unnamed glyphs.
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
    """Returns the clean pages (empty where nothing is left) and what was dropped whole, one line each.

    Hyphens at line ends are joined, runs of broken glyphs go, and pages that consist of them are emptied. With
    `drop_headers`, lines at the top and bottom of pages that come again on the pages around go as well.
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
    """Returns the pages that say something as one text with page breaks."""
    return PAGE_BREAK.join(page for page in pages if page.strip())


def _without_headers(pages: list[str]) -> list[str]:
    """Removes running heads and page numbers: short lines at an edge that stand on pages nearby as well."""
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
        # Pages that are all alike, such as forms, are no running heads.
        result.append(left if any(letter.isalpha() for letter in left) else page)
    return result


def _edge_lines(lines: Sequence[str], page: int) -> dict[int, set[str]]:
    """Returns the first and last lines that may be running heads: index, and the forms in which they would repeat.

    A line repeats as it is, or with one number in it that grows with the pages.
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
