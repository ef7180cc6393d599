"""A document as pypdf reads it."""

import io
from collections.abc import Iterator, Sequence
from typing import Any

import pypdf
from pypdf.generic import DictionaryObject

from trfmoe_core.data.pdf.engines import FILE_ERRORS, LockedError
from trfmoe_core.data.pdf.form_fields import with_values

_PASSWORD_FLAG = 1 << 13
_INVISIBLE = 1 << 1 | 1 << 5
_MAX_PARENTS = 16


class PypdfDocument:
    """See `engines.Document`."""

    def __init__(self, data: bytes, passwords: Sequence[str]) -> None:
        """Opens a document with the first of `passwords` that opens it.

        Raises:
            LockedError: none opens it.
            PyPdfError: the file is malformed.
        """
        self._reader = pypdf.PdfReader(io.BytesIO(data), strict=False)
        if self._reader.is_encrypted and not any(self._reader.decrypt(password) for password in passwords):
            raise LockedError
        self.fields_cut = 0
        root: Any = self._reader.trailer["/Root"]
        self._is_form = "/AcroForm" in root
        self.is_xfa = self._is_form and "/XFA" in root["/AcroForm"] and bool(root.get("/NeedsRendering"))

    def __len__(self) -> int:
        """Number of pages."""
        return len(self._reader.pages)

    def text(self, number: int) -> str:
        """Returns the raw text of page `number` inside its crop box, with the values of its form fields."""
        page = self._reader.pages[number]
        text = _cropped(page) if _is_cropped(page) else str(page.extract_text())
        return with_values(text, _values(page)) if self._is_form else text

    def is_overlaid(self, number: int) -> bool:
        """Returns True: pypdf does not say where letters stand."""
        return True

    def attachments(self) -> Iterator[tuple[str, bytes]]:
        """Yields name and content of every attached file."""
        for attachment in self._reader.attachment_list:
            yield attachment.name, attachment.content

    def close(self) -> None:
        """Releases the document's memory."""
        self._reader.close()


def _is_cropped(page: Any) -> bool:
    crop, media = page.cropbox, page.mediabox
    return bool(
        crop.left > media.left or crop.bottom > media.bottom or crop.right < media.right or crop.top < media.top
    )


def _cropped(page: Any) -> str:
    """Returns the text that begins inside the crop box."""
    box = page.cropbox
    left, bottom, right, top = (float(side) for side in (box.left, box.bottom, box.right, box.top))
    parts: list[str] = []

    def keep(text: str, matrix: list[float], text_matrix: list[float], font: Any, size: float) -> None:
        x = matrix[0] * text_matrix[4] + matrix[2] * text_matrix[5] + matrix[4]
        y = matrix[1] * text_matrix[4] + matrix[3] * text_matrix[5] + matrix[5]
        if left <= x <= right and bottom <= y <= top:
            parts.append(text)

    page.extract_text(visitor_text=keep)
    return "".join(parts)


def _values(page: Any) -> Iterator[tuple[str, str]]:
    """Yields name and value of the text and choice fields of a page. Malformed annotations are passed over."""
    annotations = page.get("/Annots")
    for reference in annotations.get_object() or () if annotations is not None else ():
        try:
            widget = reference.get_object()
            if widget.get("/Subtype") != "/Widget" or _inherited(widget, "/FT") not in ("/Tx", "/Ch"):
                continue
            if int(widget.get("/F") or 0) & _INVISIBLE or int(_inherited(widget, "/Ff") or 0) & _PASSWORD_FLAG:
                continue
            value = _inherited(widget, "/V")
        except FILE_ERRORS:
            continue
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str):
                yield str(_inherited(widget, "/T") or ""), one


def _inherited(widget: DictionaryObject, key: str) -> Any:
    """Returns an entry of a field, which may stand in one of its parents."""
    node: Any = widget
    for _ in range(_MAX_PARENTS):
        if key in node:
            return node[key]
        if "/Parent" not in node:
            return None
        node = node["/Parent"]
    return None
