"""Typesets manuals as PDF books of many pages, with the same bytes every time."""

import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from trfmoe_core.data.sample.stdlib_text import Manual

_CODE_COLUMNS = 92


def write_book(path: Path, title: str, manuals: Iterable[Manual], author: str = "The authors of Python") -> None:
    """Writes `manuals` as an A4 book in the standard fonts, with title and page number at the foot of every page."""
    from reportlab.lib.pagesizes import A4
    from reportlab.lib.units import mm
    from reportlab.platypus import SimpleDocTemplate

    document = SimpleDocTemplate(
        str(path),
        pagesize=A4,
        leftMargin=24 * mm,
        rightMargin=24 * mm,
        topMargin=20 * mm,
        bottomMargin=22 * mm,
        title=title,
        author=author,
        invariant=1,
    )

    def foot(canvas: Any, template: Any) -> None:
        canvas.saveState()
        canvas.setFont("Times-Italic", 9)
        canvas.drawString(24 * mm, 12 * mm, title)
        canvas.drawRightString(A4[0] - 24 * mm, 12 * mm, str(template.page))
        canvas.restoreState()

    document.build(list(_story(title, manuals)), onFirstPage=foot, onLaterPages=foot)


def _story(title: str, manuals: Iterable[Manual]) -> Iterator[Any]:
    from reportlab.lib.styles import ParagraphStyle
    from reportlab.platypus import Paragraph, Preformatted

    body = ParagraphStyle("body", fontName="Times-Roman", fontSize=10.5, leading=13, spaceAfter=5)
    head = ParagraphStyle("head", body, fontName="Times-Bold", fontSize=12, leading=15, spaceBefore=8, keepWithNext=1)
    front = ParagraphStyle("front", head, fontSize=20, leading=26, spaceAfter=14)
    code = ParagraphStyle("code", fontName="Courier", fontSize=8, leading=9.6, leftIndent=8, spaceAfter=5)
    yield Paragraph(_typeset(title), front)
    for manual in manuals:
        for section in manual.sections:
            yield Paragraph(_typeset(section.heading), head)
            for block in section.text.split("\n\n"):
                lines = [line.rstrip() for line in block.expandtabs().splitlines() if line.strip()]
                if not lines:
                    continue
                if is_prose(lines):
                    yield Paragraph(_typeset(" ".join(line.strip() for line in lines)), body)
                else:
                    short = [part for line in lines for part in textwrap.wrap(line, _CODE_COLUMNS) or [""]]
                    yield Preformatted(_printable("\n".join(short)), code)


def is_prose(lines: list[str]) -> bool:
    """Returns True for running text: all lines start in one column, and none looks like an interpreter session."""
    columns = {len(line) - len(line.lstrip()) for line in lines}
    session = any(line.lstrip().startswith((">>>", "...", "$ ", "+-", "| ")) for line in lines)
    return len(columns) == 1 and not session and "::=" not in " ".join(lines)


def _typeset(text: str) -> str:
    return escape(_printable(text))


def _printable(text: str) -> str:
    """Returns text in Windows-1252, the character set of the standard fonts."""
    return text.encode("cp1252", "replace").decode("cp1252")
