"""Collects the text of a document in reading order: blocks, line breaks, list items, tables and boxes."""

import re
from dataclasses import dataclass, field
from typing import Literal

_BREAK = "\v"
_HARD_SPACE = "\x1f"
_RESERVED = str.maketrans({_BREAK: " ", _HARD_SPACE: " "})
_PREFORMATTED = str.maketrans({"\n": _BREAK, " ": _HARD_SPACE, "\t": _HARD_SPACE * 4, "\r": None})
_SPACES = re.compile(r"[ \t\n\r\f]+")
_WIDE = "\u3001-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uff60"
# Chinese and Japanese have no spaces between words, so a wrapped line of the source is joined without one.
_WIDE_WRAP = re.compile(rf"(?<=[{_WIDE}])[ \t\r]*\n[ \t\r\n]*(?=[{_WIDE}])")
_EXPONENT = re.compile(r"[-+\u2212]?\d+")
Structure = Literal["table", "row", "cell", "box"]
_CELL = " | "
_MAX_CELL_BLOCKS = 3


@dataclass
class _Flow:
    """A column of text: the page, a table cell or a text box. A block is (newlines before it, text)."""

    blocks: list[tuple[int, str]] = field(default_factory=list)
    inline: list[str] = field(default_factory=list)
    gap: int = 0
    mark: str = ""
    boxes: list[tuple[int, str]] = field(default_factory=list)


@dataclass
class _Table:
    rows: list[list[list[tuple[int, str]]]] = field(default_factory=list)
    has_table: bool = False


class TextBuilder:
    """Builds plain text.

    Attributes:
        preformatted: number of open elements whose spaces and line ends count.
    """

    def __init__(self) -> None:
        """Starts without text."""
        self._flows = [_Flow()]
        self._tables: list[_Table] = []
        self._open: list[Structure] = []
        self.preformatted = 0

    @property
    def is_nested(self) -> bool:
        """True inside a table or a box."""
        return bool(self._open)

    def add(self, text: str) -> None:
        """Adds running text. Runs of spaces and line ends become one space unless `preformatted` is positive."""
        text = text.translate(_RESERVED)
        self._flows[-1].inline.append(text.translate(_PREFORMATTED) if self.preformatted else text)

    def add_spaces(self, count: int) -> None:
        """Adds spaces that stay as they are, such as those of an indentation."""
        self._flows[-1].inline.append(_HARD_SPACE * count if count > 1 else " ")

    def add_superscript(self, text: str, *, is_note: bool = False) -> None:
        """Adds raised text: `[1]` if it is the mark of a note, `10^6` if it is an exponent, and otherwise as it is."""
        inner = text.strip()
        inline = self._flows[-1].inline
        before = inline[-1][-1:] if inline else ""
        if is_note and inner and not inner.startswith(("[", "(")):
            self.add(f"[{inner}]")
        elif not is_note and _EXPONENT.fullmatch(inner) and (before.isalnum() or before == ")"):
            self.add(f"^{inner}")
        else:
            self.add(text)

    def add_break(self) -> None:
        """Ends the line, but not the block."""
        self._flows[-1].inline.append(_BREAK)

    def block(self, gap: int = 2) -> None:
        """Ends the current block. The next one follows after at least `gap` newlines."""
        flow = self._flows[-1]
        text = _lines("".join(flow.inline)) if flow.inline else ""
        flow.inline.clear()
        if text:
            flow.blocks.append((flow.gap, flow.mark + text))
            flow.mark, flow.gap = "", gap
        else:
            flow.gap = max(flow.gap, gap)
        if flow.boxes:
            flow.blocks += flow.boxes
            flow.boxes = []
            flow.gap = 2

    def mark(self, mark: str) -> None:
        """Puts `mark`, such as a bullet, before the next block that has text."""
        self._flows[-1].mark = mark

    def drop_mark(self) -> None:
        """Forgets a mark that no text followed."""
        self._flows[-1].mark = ""

    def start(self, kind: Structure) -> bool:
        """Starts a structure; returns False if it has no place here, such as a row outside of a table.

        A box is text that stands beside the current block and is read after it.
        """
        inside = self._open[-1] if self._open else ""
        if (kind == "row" and inside != "table") or (kind == "cell" and inside != "row"):
            return False
        if kind == "table":
            self.block()
            if self._tables:
                self._tables[-1].has_table = True
            self._tables.append(_Table())
        elif kind == "row":
            self._tables[-1].rows.append([])
        else:
            self._flows.append(_Flow())
        self._open.append(kind)
        return True

    def end(self) -> None:
        """Ends the innermost structure."""
        kind = self._open.pop()
        if kind == "row":
            return
        self.block()
        if kind == "table":
            self._add_table(self._tables.pop())
        elif kind == "cell":
            self._tables[-1].rows[-1].append(self._flows.pop().blocks)
        else:
            box = self._flows.pop().blocks
            self._flows[-1].boxes += [(gap or 2, text) for gap, text in box]

    def _add_table(self, table: _Table) -> None:
        """Adds a table. A row becomes a line, unless the table only arranges blocks on the page."""
        flow = self._flows[-1]
        cells = [cell for row in table.rows for cell in row]
        one_column = max((len(row) for row in table.rows), default=0) == 1
        if table.has_table or one_column or any(len(cell) > _MAX_CELL_BLOCKS for cell in cells):
            blocks = [(gap or 2, text) for cell in cells for gap, text in cell]
        else:
            lines = [_CELL.join(_one_line(cell) for cell in row) for row in table.rows if any(row)]
            blocks = [(2 if number == 0 else 1, line) for number, line in enumerate(lines)]
        flow.blocks += blocks
        flow.gap = 2

    def result(self) -> str:
        """Returns the text so far. The builder must not be used afterwards."""
        self.block()
        blocks = self._flows[0].blocks
        return "".join(("\n" * gap if number else "") + text for number, (gap, text) in enumerate(blocks))


def _lines(text: str) -> str:
    """Returns running text with single spaces, and with the line breaks that were asked for."""
    if "\n" in text and not text.isascii():
        text = _WIDE_WRAP.sub("", text)
    lines = [line.strip(" ") for line in _SPACES.sub(" ", text).split(_BREAK)]
    return "\n".join(lines).strip("\n").replace(_HARD_SPACE, " ") if any(lines) else ""


def _one_line(cell: list[tuple[int, str]]) -> str:
    return " ".join(text.replace("\n", " ") for _, text in cell)
