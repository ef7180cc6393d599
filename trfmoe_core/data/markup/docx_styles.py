"""The styles and numberings of a DOCX: which paragraphs are headings, hidden, or items of a list, and their marks."""

from dataclasses import dataclass, field
from typing import Any

from trfmoe_core.data.markup.numerals import numeral

_MAX_PARENTS = 16
_MAX_LEVEL = 9
_OFF = ("0", "false", "off")


def is_on(element: Any, namespace: str) -> bool:
    """Returns True if a property such as `w:vanish` is there and not switched off."""
    return element is not None and element.get(f"{namespace}val", "1") not in _OFF


def whole(text: str | None) -> int:
    """Returns a number of the file; 0 if it is none."""
    return int(text) if text and text.isdecimal() and len(text) < 10 else 0


@dataclass(frozen=True)
class Style:
    """A style with what it inherits.

    Attributes:
        name: in lower case; Word's own styles have English names in every language.
        level: outline level from 0, or None if it is no heading.
        numbering: (id, level) of its list, if it has one.
        is_hidden: True if its text is hidden.
    """

    name: str = ""
    level: int | None = None
    numbering: tuple[str, int] | None = None
    is_hidden: bool = False

    @property
    def is_contents(self) -> bool:
        """True for lines of a table of contents."""
        return self.name.startswith("toc ")


def read_styles(root: Any) -> dict[str, Style]:
    """Returns all styles of `styles.xml` by their ids."""
    w = str(root.tag).rpartition("}")[0] + "}"
    elements = {element.get(f"{w}styleId", ""): element for element in root.iter(f"{w}style")}
    return {key: _resolved(key, elements, w) for key in elements}


def _resolved(key: str, elements: dict[str, Any], w: str) -> Style:
    name = _name_of(elements[key], w)
    level, numbering, hidden = None, None, None
    for _ in range(_MAX_PARENTS):
        element = elements.get(key)
        if element is None:
            break
        outline = element.find(f"{w}pPr/{w}outlineLvl")
        if level is None and outline is not None:
            level = whole(outline.get(f"{w}val"))
        elif level is None and (built_in := _name_of(element, w)).startswith("heading "):
            level = whole(built_in.removeprefix("heading ")) - 1
        if numbering is None:
            numbering = numbering_of(element.find(f"{w}pPr"), w)
        vanish = element.find(f"{w}rPr/{w}vanish")
        if hidden is None and vanish is not None:
            hidden = is_on(vanish, w)
        parent = element.find(f"{w}basedOn")
        key = "" if parent is None else parent.get(f"{w}val", "")
    return Style(name, level if level is not None and 0 <= level < _MAX_LEVEL else None, numbering, bool(hidden))


def _name_of(style: Any, w: str) -> str:
    name = style.find(f"{w}name")
    return "" if name is None else str(name.get(f"{w}val", "")).lower()


def numbering_of(properties: Any, w: str) -> tuple[str, int] | None:
    """Returns (id, level) of the list that paragraph properties name, if they do."""
    found = None if properties is None else properties.find(f"{w}numPr")
    number = None if found is None else found.find(f"{w}numId")
    if found is None or number is None:
        return None
    level = found.find(f"{w}ilvl")
    return number.get(f"{w}val", ""), 0 if level is None else min(whole(level.get(f"{w}val")), _MAX_LEVEL - 1)


@dataclass(frozen=True)
class _Level:
    start: int
    style: str
    text: str


@dataclass
class Numberings:
    """The lists of a document. They count while the document is read."""

    _levels: dict[str, dict[int, _Level]] = field(default_factory=dict)
    _lists: dict[str, tuple[str, dict[int, int]]] = field(default_factory=dict)
    _counts: dict[str, dict[int, int]] = field(default_factory=dict)
    _begun: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, root: Any) -> "Numberings":
        """Returns the lists of `numbering.xml`."""
        found = cls()
        w = str(root.tag).rpartition("}")[0] + "}"
        for abstract in root.iterfind(f"{w}abstractNum"):
            levels = found._levels.setdefault(abstract.get(f"{w}abstractNumId", ""), {})
            for element in abstract.iterfind(f"{w}lvl"):
                values = [element.find(f"{w}{name}") for name in ("start", "numFmt", "lvlText")]
                start, style, text = [None if value is None else value.get(f"{w}val") for value in values]
                levels[whole(element.get(f"{w}ilvl"))] = _Level(
                    whole(start) if start else 1, style or "decimal", text or ""
                )
        for number in root.iterfind(f"{w}num"):
            abstract_id = number.find(f"{w}abstractNumId")
            starts = {
                whole(override.get(f"{w}ilvl")): whole(start.get(f"{w}val"))
                for override in number.iterfind(f"{w}lvlOverride")
                if (start := override.find(f"{w}startOverride")) is not None
            }
            if abstract_id is not None:
                found._lists[number.get(f"{w}numId", "")] = (abstract_id.get(f"{w}val", ""), starts)
        return found

    def mark(self, numbering: tuple[str, int]) -> str:
        """Returns what stands before the next item of a list, and counts it; empty if there is no such list."""
        key, level = numbering
        abstract, starts = self._lists.get(key, ("", {}))
        levels = self._levels.get(abstract, {})
        if level not in levels:
            return ""
        counts = self._counts.setdefault(abstract, {})
        if key not in self._begun:
            self._begun.add(key)
            for at, start in starts.items():
                counts[at] = start - 1
        counts[level] = counts.get(level, levels[level].start - 1) + 1
        for deeper in [other for other in counts if other > level]:
            del counts[deeper]
        style, text = levels[level].style, levels[level].text
        if style == "bullet":
            return "- "
        for at in range(level + 1):
            shape = levels.get(at, levels[level])
            text = text.replace(f"%{at + 1}", numeral(counts.get(at, shape.start), shape.style))
        return f"{text} " if text.strip() else ""
