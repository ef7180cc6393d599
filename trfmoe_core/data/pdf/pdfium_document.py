"""A document as pdfium (pypdfium2) reads it."""

import ctypes
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pypdfium2
import pypdfium2.raw as pdfium

from trfmoe_core.data.pdf.engines import LockedError
from trfmoe_core.data.pdf.form_fields import shown_part, with_values

_TEXT_FIELDS = (pdfium.FPDF_FORMFIELD_TEXTFIELD, pdfium.FPDF_FORMFIELD_COMBOBOX, pdfium.FPDF_FORMFIELD_LISTBOX)
_PASSWORD_FLAG = 1 << 13
_OVERLAID = 0.4
"""Of the letters of two equal layers at least half stand on equal ones, and of other text about a fifth by chance."""
_WIDTH, _HEIGHT = 6.0, 3.0
"""Points by which a layer of recognised text may miss the letters of the page."""
_HYPHEN_OF_ALL, _HYPHEN_INSIDE = re.compile("\ufffe\n?"), re.compile("\x02\n?")
_INVISIBLE = pdfium.FPDF_ANNOT_FLAG_HIDDEN | pdfium.FPDF_ANNOT_FLAG_NOVIEW


class PdfiumDocument:
    """See `engines.Document`."""

    def __init__(self, data: bytes, passwords: Sequence[str]) -> None:
        """Opens a document with the first of `passwords` that opens it.

        Raises:
            LockedError: none opens it.
            PdfiumError: the file is malformed.
        """
        self._document = _open(data, passwords)
        self.fields_cut = 0
        kind = self._document.get_formtype()
        self._is_form = kind != pdfium.FORMTYPE_NONE
        self.is_xfa = kind == pdfium.FORMTYPE_XFA_FULL
        if self._is_form:
            self._document.init_forms()

    def __len__(self) -> int:
        """Number of pages."""
        return len(self._document)

    def text(self, number: int) -> str:
        """Returns the raw text of page `number` inside its crop box, with the values of its form fields."""
        page = self._document[number]
        try:
            text_page = page.get_textpage()
            try:
                text = _text_of(text_page)
            finally:
                text_page.close()
            return with_values(text, self._values(page)) if self._is_form else text
        finally:
            page.close()

    def is_overlaid(self, number: int) -> bool:
        """Returns True if most letters of page `number` stand on equal ones."""
        page = self._document[number]
        try:
            text_page = page.get_textpage()
            try:
                return _share_on_equals(text_page) > _OVERLAID
            finally:
                text_page.close()
        finally:
            page.close()

    def attachments(self) -> Iterator[tuple[str, bytes]]:
        """Yields name and content of every attached file."""
        for index in range(self._document.count_attachments()):
            attachment = self._document.get_attachment(index)
            yield attachment.get_name(), bytes(attachment.get_data())

    def close(self) -> None:
        """Releases the document's memory."""
        self._document.close()

    def _values(self, page: Any) -> Iterator[tuple[str, str]]:
        """Yields name and value of the text and choice fields of a page."""
        form = self._document.formenv
        for index in range(pdfium.FPDFPage_GetAnnotCount(page)):
            annotation = pdfium.FPDFPage_GetAnnot(page, index)
            if not annotation:
                continue
            try:
                if (
                    pdfium.FPDFAnnot_GetSubtype(annotation) == pdfium.FPDF_ANNOT_WIDGET
                    and not pdfium.FPDFAnnot_GetFlags(annotation) & _INVISIBLE
                    and pdfium.FPDFAnnot_GetFormFieldType(form, annotation) in _TEXT_FIELDS
                    and not pdfium.FPDFAnnot_GetFormFieldFlags(form, annotation) & _PASSWORD_FLAG
                ):
                    name = _string(pdfium.FPDFAnnot_GetFormFieldName, form, annotation)
                    value = _string(pdfium.FPDFAnnot_GetFormFieldValue, form, annotation)
                    shown = shown_part(value, *_size(annotation), _font_size(form, annotation))
                    self.fields_cut += shown != value
                    yield name, shown
            finally:
                pdfium.FPDFPage_CloseAnnot(annotation)


def _text_of(text_page: Any) -> str:
    """Returns the text of a page inside its crop box.

    One function of pdfium leaves out what is outside, the other one separates lines better and marks hyphens at line
    ends by a character of their own. Both join the lines around such a hyphen.
    """
    inside = str(text_page.get_text_bounded()).replace("\r\n", "\n")
    whole = str(text_page.get_text_range()).replace("\r\n", "\n")
    if len("".join(inside.split())) == len("".join(whole.split())):
        return _HYPHEN_OF_ALL.sub("-\n", whole) if "\ufffe" in whole else whole
    # Here the mark may also be the code of a glyph without a character.
    return _HYPHEN_INSIDE.sub("-\n", inside) if "\x02" in inside and "\x02" not in whole else inside


def _share_on_equals(text_page: Any) -> float:
    """Returns the share of characters that stand within a few points of an equal one before them."""
    seen: set[tuple[int, int, int]] = set()
    total = repeated = 0
    for index in range(text_page.count_chars()):
        code = pdfium.FPDFText_GetUnicode(text_page, index)
        if code <= ord(" "):
            continue
        left, bottom, _, _ = text_page.get_charbox(index)
        x, y = int(left // _WIDTH), int(bottom // _HEIGHT)
        total += 1
        repeated += (code, x, y) in seen
        seen |= {(code, x + dx, y + dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1)}
    return repeated / total if total else 0.0


def _open(data: bytes, passwords: Sequence[str]) -> Any:
    for password in passwords:
        try:
            return pypdfium2.PdfDocument(data, password=password or None)
        except pypdfium2.PdfiumError as error:
            if "password" not in str(error).lower():
                raise
    raise LockedError


def _size(annotation: Any) -> tuple[float, float]:
    """Returns width and height of a field."""
    box = pdfium.FS_RECTF()
    pdfium.FPDFAnnot_GetRect(annotation, box)
    return box.right - box.left, box.top - box.bottom


def _font_size(form: Any, annotation: Any) -> float:
    size = ctypes.c_float(0.0)
    pdfium.FPDFAnnot_GetFontSize(form, annotation, size)
    return size.value


def _string(function: Callable[..., int], form: Any, annotation: Any) -> str:
    """Returns the string that a pdfium function writes into a buffer of UTF-16."""
    size = function(form, annotation, None, 0)
    buffer = ctypes.create_string_buffer(size)
    function(form, annotation, ctypes.cast(buffer, ctypes.POINTER(ctypes.c_ushort)), size)
    return buffer.raw.decode("utf-16-le", "replace").rstrip("\0")
