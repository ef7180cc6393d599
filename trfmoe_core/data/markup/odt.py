"""ODT, by OASIS OpenDocument 1.3: text, lists, tables, text boxes and notes in reading order.

Left out: what was deleted with tracked changes, hidden text, comments, tables of contents.
"""

from typing import Any

from trfmoe_core.data.markup.formula import formula
from trfmoe_core.data.markup.numerals import numeral
from trfmoe_core.data.markup.package import Package, linked_name
from trfmoe_core.data.markup.result import MarkupText, UnreadableError
from trfmoe_core.data.markup.text_builder import Structure, TextBuilder
from trfmoe_core.data.markup.tree import names, parse_xml, walk

_MANIFEST = "META-INF/manifest.xml"
_CONTENT = "content.xml"
_NAMESPACE = "urn:oasis:names:tc:opendocument:xmlns:"
_TEXT, _STYLE = "{" + _NAMESPACE + "text:1.0}", "{" + _NAMESPACE + "style:1.0}"
_SKIPPED = names(
    "text:tracked-changes office:annotation text:note-citation text:ruby-text text:table-of-content text:hidden-text "
    "office:scripts office:forms text:sequence-decls text:variable-decls text:user-field-decls text:list-header "
    "svg-compatible:title svg-compatible:desc drawing:object-ole table:covered-table-cell table:shapes"
)
_STRUCTURES: dict[str, Structure] = {
    "table:table": "table",
    "table:table-row": "row",
    "table:table-cell": "cell",
    "drawing:text-box": "box",
}
_MATH = "{http://www.w3.org/1998/Math/MathML}math"
_XLINK = "{http://www.w3.org/1999/xlink}"
_MAX_SPACES = 64


def read_odt(data: bytes) -> MarkupText:
    """Returns the text of a document. A new part begins at every heading of the first level.

    Raises:
        UnreadableError: it is encrypted, too large, or no such document.
    """
    package = Package(data)
    if _MANIFEST in package:
        manifest = parse_xml(package.read(_MANIFEST), _MANIFEST)
        if next(manifest.iter("{*}encryption-data"), None) is not None:
            raise UnreadableError("needs-password", "encrypted; save it without a password")
    root = parse_xml(package.read(_CONTENT), _CONTENT)
    text = next(root.iter("{" + _NAMESPACE + "office:1.0}text"), None)
    if text is None:
        raise UnreadableError("broken", f"no text document: {_CONTENT} has no office:text")
    sheets, lost = [root], []
    if "styles.xml" in package:
        try:
            sheets.append(parse_xml(package.read("styles.xml"), "styles.xml"))
        except UnreadableError as error:
            lost.append(error.detail)
    body = _Body(package, sheets)
    walk(text, body.start, body.end, body.text)
    return MarkupText(body.finish(), lost)


def _name(element: Any) -> str:
    """Returns the name of an element with the usual prefix of its namespace, e.g. `text:p`."""
    namespace, _, name = str(element.tag).rpartition("}")
    return f"{namespace.removeprefix('{' + _NAMESPACE).partition(':')[0]}:{name}"


class _Body:
    """Turns the elements of a document into calls of a `TextBuilder`."""

    def __init__(self, package: Package, sheets: list[Any]) -> None:
        self._package = package
        self._hidden = {
            style.get(f"{_STYLE}name")
            for sheet in sheets
            for style in sheet.iter(f"{_STYLE}style")
            if any(properties.get(f"{_TEXT}display") == "none" for properties in style.iter(f"{_STYLE}text-properties"))
        }
        self._raised = {
            style.get(f"{_STYLE}name")
            for sheet in sheets
            for style in sheet.iter(f"{_STYLE}style")
            if any(
                "super" in found.get(f"{_STYLE}text-position", "") for found in style.iter(f"{_STYLE}text-properties")
            )
        }
        self._list_styles = {
            style.get(f"{_STYLE}name"): style for sheet in sheets for style in sheet.iter(f"{_TEXT}list-style")
        }
        self._builder = TextBuilder()
        self._parts: list[str] = []
        self._opened: list[Any] = []
        # Depth of open paragraphs: text between them is only layout of the XML.
        self._paragraphs = 0
        self._lists: list[tuple[str, int]] = []
        self._notes: list[Any] = []
        self._num_notes = 0
        self._in_notes = False

    def finish(self) -> list[str]:
        """Ends the last part and returns all of them."""
        self._end_part()
        return self._parts

    def text(self, text: str) -> None:
        """Takes the text inside of paragraphs."""
        if self._paragraphs:
            self._builder.add(text)

    def start(self, element: Any) -> bool:
        """Begins an element; returns False if its content is not read."""
        name = _name(element)
        if name in _SKIPPED or self._is_hidden(element):
            return False
        if name in ("text:p", "text:h"):
            self._start_paragraph(name, element)
        elif name == "text:s":
            self._builder.add_spaces(min(_count(element.get(f"{_TEXT}c"), 1), _MAX_SPACES))
        elif name == "text:tab":
            self._builder.add(" ")
        elif name == "text:line-break":
            self._builder.add_break()
        elif name == "text:span" and element.get(f"{_TEXT}style-name") in self._raised and len(element) == 0:
            self._builder.add_superscript(element.text or "")
            return False
        elif name == "text:note":
            self._refer(element)
            return False
        elif name == "drawing:object":
            self._builder.add(self._formula(element.get(f"{_XLINK}href", "")))
            return False
        elif name == "text:list":
            own = element.get(f"{_TEXT}style-name") or (self._lists[-1][0] if self._lists else "")
            self._lists.append((own, 0))
        elif name == "text:list-item":
            self._builder.mark(self._item_mark(element))
        elif name in _STRUCTURES and self._builder.start(_STRUCTURES[name]):
            self._opened.append(element)
        return True

    def end(self, element: Any) -> None:
        """Ends an element whose content was read."""
        name = _name(element)
        if name in ("text:p", "text:h"):
            self._paragraphs -= 1
            self._builder.block(1 if self._lists else 2)
        elif name == "text:list":
            self._lists.pop()
            self._builder.block(1 if self._lists else 2)
        elif name == "text:list-item":
            self._builder.drop_mark()
        elif self._opened and self._opened[-1] is element:
            self._opened.pop()
            self._builder.end()

    def _is_hidden(self, element: Any) -> bool:
        return (
            element.get(f"{_TEXT}display") == "none"
            or element.get(f"{_TEXT}is-hidden") == "true"
            or element.get(f"{_TEXT}style-name") in self._hidden
        )

    def _start_paragraph(self, name: str, element: Any) -> None:
        is_top = name == "text:h" and element.get(f"{_TEXT}outline-level", "1") == "1"
        if is_top and not self._builder.is_nested and not self._in_notes and not self._paragraphs:
            self._end_part()
        self._paragraphs += 1
        self._builder.block(1 if self._lists else 2)

    def _item_mark(self, element: Any) -> str:
        """Returns the mark of a list item and counts it."""
        if not self._lists:
            return ""
        style_name, count = self._lists[-1]
        depth = len(self._lists)
        count = _count(element.get(f"{_TEXT}start-value"), count + 1)
        self._lists[-1] = (style_name, count)
        style = self._list_styles.get(style_name)
        for level in () if style is None else style:
            if _name(level) == "text:list-level-style-number" and level.get(f"{_TEXT}level") == str(depth):
                shown = numeral(count, level.get(f"{_STYLE}num-format", "1"))
                before, after = level.get(f"{_STYLE}num-prefix", ""), level.get(f"{_STYLE}num-suffix", "")
                return "  " * (depth - 1) + f"{before}{shown}{after} " if shown else ""
        return "  " * (depth - 1) + "- "

    def _formula(self, link: str) -> str:
        """Returns the formula that an embedded object holds; empty if it holds something else."""
        member = linked_name("", f"{link}/{_CONTENT}")
        if link.startswith(("http:", "https:")) or member not in self._package:
            return ""
        try:
            root = parse_xml(self._package.read(member), member)
        except UnreadableError:
            return ""
        return formula(root) if root.tag == _MATH else ""

    def _refer(self, note: Any) -> None:
        self._num_notes += 1
        self._notes.append(note)
        self._builder.add(f"[{self._num_notes}]")

    def _end_part(self) -> None:
        """Ends a part with the notes to which it refers."""
        builder = self._builder
        builder.block()
        first = self._num_notes - len(self._notes) + 1
        lists, self._lists, self._in_notes = self._lists, [], True
        paragraphs, self._paragraphs = self._paragraphs, 0
        for number, note in enumerate(self._notes, start=first):
            builder.mark(f"[{number}] ")
            for body in note.iterchildren(f"{_TEXT}note-body"):
                walk(body, self.start, self.end, self.text)
        self._lists, self._paragraphs, self._notes, self._in_notes = lists, paragraphs, [], False
        if text := builder.result():
            self._parts.append(text)
        self._builder = TextBuilder()


def _count(text: str | None, default: int) -> int:
    return int(text) if text and text.isdecimal() and len(text) < 10 else default
