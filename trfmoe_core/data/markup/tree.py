"""Parses XML and walks through trees. Nothing that a document names is loaded, and no entity is expanded."""

from collections.abc import Callable
from typing import Any

from lxml import etree

from trfmoe_core.data.markup.result import UnreadableError


def parse_xml(data: bytes, what: str) -> Any:
    """Returns the root element of an XML file.

    Raises:
        UnreadableError: it is no XML. `what` says in the message which file it is.
    """
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False, huge_tree=False
    )
    try:
        return etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise UnreadableError("broken", f"{what} is no XML: {str(error.msg)[:160]}") from error


def names(text: str) -> frozenset[str]:
    """Returns the names of elements that are listed in `text`."""
    return frozenset(text.split())


def local(element: Any) -> str:
    """Returns the name of an element without its namespace."""
    return str(element.tag).rpartition("}")[2]


def walk(
    root: Any, start: Callable[[Any], bool], end: Callable[[Any], None], text: Callable[[str], None] | None = None
) -> None:
    """Visits a tree in reading order, without recursion. Comments and processing instructions are left out.

    Args:
        root: the element to begin with.
        start: called at an element's start; returns True to visit its content.
        end: called at the end of every element whose content was visited.
        text: called with the text inside and between the elements, if it is wanted.
    """
    if not start(root):
        return
    if text and root.text:
        text(root.text)
    stack = [(root, iter(root))]
    while stack:
        element, children = stack[-1]
        child = next(children, None)
        if child is None:
            stack.pop()
            end(element)
            done = element if stack else None
        elif isinstance(child.tag, str) and start(child):
            if text and child.text:
                text(child.text)
            stack.append((child, iter(child)))
            done = None
        else:
            done = child
        if text and done is not None and done.tail:
            text(done.tail)
