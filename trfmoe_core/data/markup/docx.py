"""DOCX, by ECMA-376: text, lists, tables, text boxes and notes in reading order. Macros and links are never followed.

Left out: what was deleted with tracked changes, hidden text, comments, running heads, tables of contents.
"""

from typing import Any

from trfmoe_core.data.markup.docx_styles import Numberings, Style, is_on, numbering_of, read_styles
from trfmoe_core.data.markup.package import Package, linked_name
from trfmoe_core.data.markup.result import MarkupText, UnreadableError
from trfmoe_core.data.markup.text_builder import Structure, TextBuilder
from trfmoe_core.data.markup.tree import local, names, parse_xml, walk

_RELATIONS = "_rels/.rels"
_SKIPPED = names(
    "del moveFrom instrText delText delInstrText pPr rPr sectPr tblPr tblPrEx tblGrid trPr tcPr sdtPr sdtEndPr rt "
    "object altChunk commentReference softHyphen"
)
_STRUCTURES: dict[str, Structure] = {"tbl": "table", "tr": "row", "tc": "cell", "txbxContent": "box"}
_CONTENTS = "table of contents"
# What stands before a part of a formula: of a fraction its lower half, and raised and lowered signs.
_FORMULA = {"den": "/", "sup": "^", "sub": "_"}
_PRIVATE_USE = range(0xE000, 0xF900)


def read_docx(data: bytes) -> MarkupText:
    """Returns the text of a document. A new part begins at every heading of the first level.

    Raises:
        UnreadableError: it is encrypted, too large, or no such document.
    """
    package = Package(data)
    main = _main_part(package)
    root = parse_xml(package.read(main), main)
    if local(root) != "document":
        raise UnreadableError("broken", f"no text document: {main} holds a {local(root)}")
    lost: list[str] = []
    related = _related(package, main)
    sheets: dict[str, Any] = {}
    for kind in ("styles", "numbering", "footnotes", "endnotes"):
        if kind in related:
            try:
                sheets[kind] = parse_xml(package.read(related[kind]), related[kind])
            except UnreadableError as error:
                lost.append(f"{kind}: {error.detail}")
    body = _Body(str(root.tag).rpartition("}")[0] + "}", sheets)
    walk(root, body.start, body.end)
    return MarkupText(body.finish(), lost)


def _main_part(package: Package) -> str:
    """Returns the name of the part that holds the text."""
    if _RELATIONS in package:
        for relation in parse_xml(package.read(_RELATIONS), _RELATIONS).iter("{*}Relationship"):
            if relation.get("Type", "").endswith("/officeDocument"):
                return linked_name("", relation.get("Target", ""))
    if "word/document.xml" in package:
        return "word/document.xml"
    raise UnreadableError("broken", "a zip container, but no DOCX: it names no main part")


def _related(package: Package, main: str) -> dict[str, str]:
    """Returns the parts to which the main part is related, by the kind of relation."""
    folder, _, name = main.rpartition("/")
    relations = f"{folder}/_rels/{name}.rels"
    if relations not in package:
        return {}
    found: dict[str, str] = {}
    for relation in parse_xml(package.read(relations), relations).iter("{*}Relationship"):
        if relation.get("TargetMode") != "External":
            kind = relation.get("Type", "").rpartition("/")[2]
            found.setdefault(kind, linked_name(main, relation.get("Target", "")))
    return {kind: part for kind, part in found.items() if part in package}


class _Body:
    """Turns the elements of a document into calls of a `TextBuilder`."""

    def __init__(self, w: str, sheets: dict[str, Any]) -> None:
        self._w = w
        self._styles = read_styles(sheets["styles"]) if "styles" in sheets else {}
        self._numberings = Numberings.of(sheets["numbering"]) if "numbering" in sheets else Numberings()
        self._notes = {
            kind: {note.get(f"{w}id", ""): note for note in sheets[f"{kind}s"].iterfind(f"{w}{kind}")}
            for kind in ("footnote", "endnote")
            if f"{kind}s" in sheets
        }
        self._builder = TextBuilder()
        self._parts: list[str] = []
        self._opened: list[Any] = []
        self._referenced: list[Any] = []
        self._in_notes = False
        self._num_notes = 0
        self._is_raised = False
        self._goes_on = False

    def finish(self) -> list[str]:
        """Ends the last part and returns all of them."""
        self._end_part()
        return self._parts

    def start(self, element: Any) -> bool:
        """Begins an element; returns False if its content is not read."""
        name = local(element)
        if name in _SKIPPED:
            return False
        if name == "t":
            self._add(element.text or "")
            return False
        if name in ("tab", "ptab"):
            self._builder.add(" ")
        elif name in ("br", "cr"):
            self._builder.add_break()
        elif name == "noBreakHyphen":
            self._builder.add("-")
        elif name == "sym":
            self._builder.add(_symbol(element.get(f"{self._w}char", "")))
        elif name in ("footnoteReference", "endnoteReference"):
            self._refer(name.removesuffix("Reference"), element.get(f"{self._w}id", ""))
        elif name in _FORMULA:
            self._builder.add(_FORMULA[name])
            return True
        else:
            return self._open(name, element)
        return False

    def end(self, element: Any) -> None:
        """Ends an element whose content was read."""
        name = local(element)
        if name == "p":
            # Where the end of a paragraph was deleted, the next one goes on in the same block.
            self._goes_on = element.find(f"{self._w}pPr/{self._w}rPr/{self._w}del") is not None
            if not self._goes_on:
                self._builder.block(1 if self._list_of(element) else 2)
                self._builder.drop_mark()
        elif name == "r":
            self._is_raised = False
        elif self._opened and self._opened[-1] is element:
            self._opened.pop()
            self._builder.end()

    def _open(self, name: str, element: Any) -> bool:
        w = self._w
        if name == "p":
            return self._start_paragraph(element)
        if name == "r":
            return self._start_run(element)
        if name in _STRUCTURES:
            if any(element.find(path) is not None for path in (f"{w}trPr/{w}del", f"{w}tcPr/{w}cellDel")):
                return False
            if self._builder.start(_STRUCTURES[name]):
                self._opened.append(element)
        elif name in ("Choice", "Fallback"):
            # All of them show the same content, the first one in its newest form.
            return not any(local(other) == "Choice" for other in element.itersiblings("{*}Choice", preceding=True))
        elif name == "sdt":
            gallery = element.find(f"{w}sdtPr/{w}docPartObj/{w}docPartGallery")
            is_contents = gallery is not None and gallery.get(f"{w}val", "").lower() == _CONTENTS
            return not is_contents and not is_on(element.find(f"{w}sdtPr/{w}showingPlcHdr"), w)
        return True

    def _start_paragraph(self, element: Any) -> bool:
        style = self._style_of(element)
        if style.is_contents or style.is_hidden:
            return False
        if style.level == 0 and not self._builder.is_nested and not self._in_notes:
            self._end_part()
        found = self._list_of(element)
        if self._goes_on:
            return True
        self._builder.block(1 if found else 2)
        if found:
            indent = "" if style.level is not None else "  " * found[1]
            mark = self._numberings.mark(found)
            self._builder.mark(indent + mark if mark else "")
        return True

    def _start_run(self, element: Any) -> bool:
        properties = element.find(f"{self._w}rPr")
        if properties is None:
            return True
        if is_on(properties.find(f"{self._w}vanish"), self._w):
            return False
        style = properties.find(f"{self._w}rStyle")
        if style is not None and self._styles.get(style.get(f"{self._w}val", ""), Style()).is_hidden:
            return False
        raised = properties.find(f"{self._w}vertAlign")
        self._is_raised = raised is not None and raised.get(f"{self._w}val") == "superscript"
        return True

    def _style_of(self, paragraph: Any) -> Style:
        named = paragraph.find(f"{self._w}pPr/{self._w}pStyle")
        return self._styles.get("" if named is None else named.get(f"{self._w}val", ""), Style())

    def _list_of(self, paragraph: Any) -> tuple[str, int] | None:
        own = numbering_of(paragraph.find(f"{self._w}pPr"), self._w)
        return own or self._style_of(paragraph).numbering

    def _add(self, text: str) -> None:
        if self._is_raised:
            self._builder.add_superscript(text)
            return
        # Spaces at the start of a text may be the indentation of a line.
        rest = text.lstrip(" ")
        if rest != text:
            self._builder.add_spaces(len(text) - len(rest))
        self._builder.add(rest)

    def _refer(self, kind: str, key: str) -> None:
        note = self._notes.get(kind, {}).pop(key, None)
        if note is not None:
            self._num_notes += 1
            self._referenced.append(note)
            self._builder.add(f"[{self._num_notes}]")

    def _end_part(self) -> None:
        """Ends a part with the notes to which it refers."""
        builder = self._builder
        builder.block()
        self._in_notes = True
        first = self._num_notes - len(self._referenced) + 1
        for number, note in enumerate(self._referenced, start=first):
            builder.mark(f"[{number}] ")
            walk(note, self.start, self.end)
        self._in_notes, self._referenced = False, []
        if text := builder.result():
            self._parts.append(text)
        self._builder = TextBuilder()


def _symbol(code: str) -> str:
    """Returns the character of a symbol; empty if only its font knows what it looks like."""
    try:
        value = int(code, 16)
    except ValueError:
        return ""
    return chr(value) if 0x20 <= value < 0x110000 and value not in _PRIVATE_USE else ""
