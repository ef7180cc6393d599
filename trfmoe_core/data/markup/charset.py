"""Finds out in which encoding a web page is written, as browsers do."""

import codecs
import re

# Browsers read these names as the larger encodings that pages under these names are in fact written in.
_MEANT = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
    # A page whose own letters say that it is UTF-16 is none: they would not be readable.
    "utf-16": "utf-8",
    "utf-16-le": "utf-8",
    "utf-16-be": "utf-8",
    "utf-7": "cp1252",
}
_NAMES = {"x-sjis": "cp932", "windows-31j": "cp932", "x-gbk": "gb18030", "x-mac-cyrillic": "mac_cyrillic"}
_DECLARED = re.compile(
    rb"""<meta[^>]{0,512}?charset\s*=\s*["']?\s*([\w.:-]{2,40})|<\?xml[^>]{0,512}?encoding\s*=\s*["']([\w.:-]{2,40})""",
    re.IGNORECASE,
)
_HEAD_BYTES = 4096
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


def decode_page(data: bytes, encoding: str = "") -> tuple[str, int]:
    """Returns the text of a page, and the number of places that are no text in its encoding.

    A given `encoding` is taken, and otherwise a byte order mark decides. Without one, bytes that are valid UTF-8 and
    not only ASCII are UTF-8, whatever the page says; then the page's own declaration counts; without any, Windows-1252
    as in browsers.
    """
    if encoding:
        return _decode(data, encoding)
    for mark, name in _MARKS:
        if data.startswith(mark):
            return _decode(data[len(mark) :], name)
    if not data.isascii():
        try:
            return data.decode("utf-8"), 0
        except UnicodeDecodeError:
            pass
    return _decode(data, _declared(data[:_HEAD_BYTES]) or "cp1252")


def _declared(head: bytes) -> str:
    """Returns the codec for the encoding that a page names; empty if it names none that is known."""
    found = _DECLARED.search(head)
    if not found:
        return ""
    name = (found[1] or found[2]).decode("ascii", "replace").lower()
    try:
        known = codecs.lookup(_NAMES.get(name, name))
    except (LookupError, ValueError):
        return ""
    return _MEANT.get(known.name, known.name) if known._is_text_encoding else ""


def _decode(data: bytes, name: str) -> tuple[str, int]:
    text = data.decode(name, "replace")
    return text, text.count("\ufffd") - (data.count("\ufffd".encode()) if name == "utf-8" else 0)
