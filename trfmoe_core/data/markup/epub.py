"""EPUB 2 and 3: the chapters in the order of the book's spine, read as web pages."""

import re
from html.entities import html5
from typing import Any

from lxml import etree

from trfmoe_core.data.markup.charset import decode_page
from trfmoe_core.data.markup.html import html_text, parse_html
from trfmoe_core.data.markup.package import Package, linked_name
from trfmoe_core.data.markup.result import MarkupText, UnreadableError
from trfmoe_core.data.markup.tree import parse_xml

_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_PAGES = ("application/xhtml+xml", "text/html", "text/x-oeb1-document", "application/xml")
# These hide fonts only, and are no copy protection of the text.
_FONTS = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")
_ENTITY = re.compile(rb"&([A-Za-z][A-Za-z0-9]{1,31});")
_XML_ENTITIES = (b"amp", b"lt", b"gt", b"quot", b"apos")


def read_epub(data: bytes) -> MarkupText:
    """Returns the text of a book, one part for every chapter of its spine. A chapter that is lost is empty.

    Raises:
        UnreadableError: it is protected against copying, too large, or no such book.
    """
    package = Package(data)
    protected = _protected(package)
    book = _book(package)
    root = parse_xml(package.read(book), book)
    parts: list[str] = []
    lost: list[str] = []
    for name, kind in _spine(root, book):
        if kind not in _PAGES:
            continue
        if name in protected:
            raise UnreadableError("needs-password", "protected against copying (DRM); only its shop's programs open it")
        try:
            page, cut = _page(package.read(name))
            parts.append("" if page is None else html_text(page, is_book=True))
            lost += [f"chapter {len(parts)}: {line}" for line in cut]
        except UnreadableError as error:
            parts.append("")
            lost.append(f"chapter {len(parts)}: {error.detail}")
    if not parts:
        raise UnreadableError("broken", "its spine names no chapters")
    return MarkupText(parts, lost)


def _protected(package: Package) -> set[str]:
    """Returns the names of the members that are encrypted with more than the hiding of fonts."""
    if _ENCRYPTION not in package:
        return set()
    found = set()
    for entry in parse_xml(package.read(_ENCRYPTION), _ENCRYPTION).iter("{*}EncryptedData"):
        methods = [method.get("Algorithm", "") for method in entry.iterfind("{*}EncryptionMethod")]
        if not methods or methods[0] not in _FONTS:
            found |= {linked_name("", link.get("URI", "")) for link in entry.iter("{*}CipherReference")}
    return found


def _book(package: Package) -> str:
    """Returns the name of the package document, which lists the chapters."""
    if _CONTAINER not in package:
        raise UnreadableError("broken", f"a zip container, but no EPUB: {_CONTAINER} is missing")
    for file in parse_xml(package.read(_CONTAINER), _CONTAINER).iter("{*}rootfile"):
        if file.get("full-path"):
            return linked_name("", file.get("full-path"))
    raise UnreadableError("broken", f"{_CONTAINER} names no book")


def _spine(root: Any, book: str) -> list[tuple[str, str]]:
    """Returns name and media type of everything in the spine, without the table of contents."""
    items = {
        item.get("id"): (linked_name(book, item.get("href", "")), item.get("media-type", ""))
        for item in root.iterfind("{*}manifest/{*}item")
        if "nav" not in item.get("properties", "").split()
    }
    named = [entry.get("idref") for entry in root.iterfind("{*}spine/{*}itemref")]
    return [items[key] for key in dict.fromkeys(named) if key in items]


def _page(data: bytes) -> tuple[Any, list[str]]:
    """Returns the root of a chapter, read as XML or, if it is none, as a web page, and a line about what is lost."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, remove_pis=True)
    try:
        return etree.fromstring(_ENTITY.sub(_character, data), parser), []
    except etree.XMLSyntaxError:
        return parse_html(decode_page(data)[0])


def _character(entity: "re.Match[bytes]") -> bytes:
    """Returns an entity of HTML as numbers of its characters: an XML parser does not know it by name."""
    if entity[1] in _XML_ENTITIES:
        return entity[0]
    characters = html5.get(entity[1].decode("ascii") + ";", "")
    return b"".join(b"&#%d;" % ord(character) for character in characters) or entity[0]
