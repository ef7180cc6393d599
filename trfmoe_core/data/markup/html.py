"""Web pages: title, headings, paragraphs, lists, tables and code, without navigation, forms and hidden text."""

import re
from typing import Any

from lxml import etree

from trfmoe_core.data.markup.charset import decode_page
from trfmoe_core.data.markup.formula import formula
from trfmoe_core.data.markup.result import MarkupText, UnreadableError
from trfmoe_core.data.markup.text_builder import Structure, TextBuilder
from trfmoe_core.data.markup.tree import local, names, walk

MAX_BYTES = 1 << 26
_GAPS = dict.fromkeys(
    names(
        "p h1 h2 h3 h4 h5 h6 blockquote pre listing xmp dl figure section article hr details fieldset address main "
        "header footer aside body ul ol menu dir form"
    ),
    2,
) | dict.fromkeys(names("div li dt dd summary figcaption caption center legend tr td th"), 1)
_SKIPPED = names(
    "script style nav template noscript head button select input textarea datalist iframe frame frameset noframes "
    "object embed applet svg canvas audio video map dialog rt rp meta link base basefont title param progress "
    "meter"
)
_SKIPPED_ROLES = names(
    "navigation banner contentinfo search menu menubar toolbar dialog alertdialog tablist tree doc-toc doc-pagebreak"
)
_PREFORMATTED = frozenset(("pre", "listing", "xmp"))
_LISTS = frozenset(("ul", "ol", "menu", "dir"))
_STRUCTURES: dict[str, Structure] = {"table": "table", "tr": "row", "td": "cell", "th": "cell"}
_SECTIONS = ("article", "main", "section", "blockquote", "li")
_EPUB_TYPE = "{http://www.idpf.org/2007/ops}type"
_INVISIBLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden|mso-hide\s*:\s*all", re.IGNORECASE)


def read_html(data: bytes, encoding: str = "") -> MarkupText:
    """Returns the text of a web page. Without an `encoding` it is found out.

    Raises:
        UnreadableError: it is too large.
    """
    if len(data) > MAX_BYTES:
        raise UnreadableError("too-large", f"a web page of more than {MAX_BYTES >> 20} MiB")
    text, replaced = decode_page(data, encoding)
    lost = (
        [f"{replaced} places are no text in the page's encoding; name another by {{path: ..., encoding: NAME}}"]
        if replaced > 0
        else []
    )
    root, cut = parse_html(text)
    lost += cut
    return MarkupText([""] if root is None else [html_text(root)], lost)


def parse_html(text: str) -> tuple[Any, list[str]]:
    """Returns the root element of a page, or None if there is none, and a line about what the parser gave up."""
    data = text.replace("\0", "").encode("utf-8", "replace")
    parser = etree.HTMLParser(encoding="utf-8", huge_tree=True, no_network=True, remove_comments=True, remove_pis=True)
    try:
        root = etree.fromstring(data, parser)
    except (etree.ParserError, etree.XMLSyntaxError):
        root = None
    limits = [str(entry.message) for entry in parser.error_log if entry.type == etree.ErrorTypes.ERR_RESOURCE_LIMIT]
    return root, [f"the page's end is lost: {limits[0].partition(',')[0]}"] if limits else []


def html_text(root: Any, *, is_book: bool = False) -> str:
    """Returns the text of a parsed page.

    A page that marks its main content (`main`, or the role of that name) is read there only. Its title comes first
    unless the content has a heading of the first level.

    Args:
        root: the root element.
        is_book: True: a chapter of a book. Asides are its notes then, and it has no title of its own.
    """
    content = root if is_book else _main(root)
    page = _Page(is_book=is_book)
    if not is_book:
        page.add_title(root, content)
    walk(content, page.start, page.end, page.builder.add)
    return page.builder.result()


def _main(root: Any) -> Any:
    """Returns the element that holds the main content: the only one that is marked so, or `root`."""
    marked = [element for element in root.iter("main") if not _is_hidden(element)]
    marked = marked or [element for element in root.iterfind(".//*[@role='main']") if not _is_hidden(element)]
    if len(marked) == 1 and any(part.strip() for part in marked[0].itertext()):
        return marked[0]
    return root


def _is_hidden(element: Any) -> bool:
    attributes = element.attrib
    if not attributes:
        return False
    if attributes.get("hidden", "until-found") != "until-found" or attributes.get("aria-hidden") == "true":
        return True
    return _INVISIBLE.search(attributes.get("style", "")) is not None


class _Page:
    """Turns the elements of a page into calls of a `TextBuilder`."""

    def __init__(self, *, is_book: bool) -> None:
        self.builder = TextBuilder()
        self._is_book = is_book
        # For every open list its next number, or None if it is not numbered.
        self._lists: list[int | None] = []
        self._opened: list[Any] = []

    def add_title(self, root: Any, content: Any) -> None:
        title = next(root.iter("title"), None)
        if title is not None and next(content.iter("h1"), None) is None:
            self.builder.add("".join(title.itertext()))
            self.builder.block()

    def start(self, element: Any) -> bool:
        """Begins an element; returns False if its content is not read."""
        tag = local(element).lower()
        if tag == "math":
            self.builder.add(formula(element))
            return False
        if tag == "br":
            self.builder.add_break()
            return False
        if self._is_left_out(tag, element):
            return False
        is_note = _is_note(tag, element)
        if is_note or tag == "sup":
            self.builder.add_superscript("".join(element.itertext()), is_note=is_note)
            return False
        if tag in _LISTS and self._lists:
            self.builder.block(1)
        elif tag in _GAPS:
            self.builder.block(_GAPS[tag])
        self._open(tag, element)
        return True

    def end(self, element: Any) -> None:
        """Ends an element whose content was read."""
        tag = local(element).lower()
        if tag in _LISTS:
            self._lists.pop()
            self.builder.block(1 if self._lists else 2)
            return
        if tag in _GAPS:
            self.builder.block(_GAPS[tag])
        if tag == "li":
            self.builder.drop_mark()
        elif tag in _PREFORMATTED:
            self.builder.preformatted -= 1
        elif self._opened and self._opened[-1] is element:
            self._opened.pop()
            self.builder.end()

    def _open(self, tag: str, element: Any) -> None:
        if tag in _LISTS:
            self._lists.append(_number(element.get("start"), 1) if tag == "ol" else None)
        elif tag == "li":
            self.builder.mark(self._item_mark(element))
        elif tag in _PREFORMATTED:
            self.builder.preformatted += 1
        elif tag in _STRUCTURES and self.builder.start(_STRUCTURES[tag]):
            self._opened.append(element)

    def _item_mark(self, element: Any) -> str:
        indent = "  " * (len(self._lists) - 1)
        number = self._lists[-1] if self._lists else None
        if number is None:
            return f"{indent}- "
        number = _number(element.get("value"), number)
        self._lists[-1] = number + 1
        return f"{indent}{number}. "

    def _is_left_out(self, tag: str, element: Any) -> bool:
        if tag in _SKIPPED or _is_hidden(element):
            return True
        role = element.get("role", "")
        if role in _SKIPPED_ROLES:
            return True
        if tag == "a" and element.get("href", "").startswith("#"):
            # A link within the page without letters: the mark of a heading's own address, or the way back from a note.
            return not any(letter.isalnum() for part in element.itertext() for letter in part)
        if tag in ("aside", "footer") and not self._is_book and not role.startswith("doc-"):
            return not any(True for _ in element.iterancestors(*_SECTIONS))
        return False


def _is_note(tag: str, element: Any) -> bool:
    """Returns True for the mark of a note: a link that says so, or a link that is raised."""
    if tag == "a":
        return "noteref" in (element.get("role", "") + element.get(_EPUB_TYPE, "") + element.get("epub:type", ""))
    parent = element.getparent()
    return tag == "sup" and (
        element.find(".//{*}a") is not None or (parent is not None and local(parent).lower() == "a")
    )


def _number(value: str | None, default: int) -> int:
    return int(value) if value and value.strip().isdecimal() and len(value) < 10 else default
