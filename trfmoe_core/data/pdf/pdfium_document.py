"""A document as pdfium (pypdfium2) reads it."""

import ctypes
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pypdfium2
import pypdfium2.raw as pdfium

from trfmoe_core.data.pdf.engines import LockedError
from trfmoe_core.data.pdf.form_fields import with_values

_TEXT_FIELDS = (pdfium.FPDF_FORMFIELD_TEXTFIELD, pdfium.FPDF_FORMFIELD_COMBOBOX, pdfium.FPDF_FORMFIELD_LISTBOX)
_PASSWORD_FLAG = 1 << 13
# pdfium joins the lines around a hyphen at a line's end, and writes U+0002 for it.
_LINE_END_HYPHEN = re.compile("\x02\n?")


class PdfiumDocument:
    """See `engines.Document`."""

    def __init__(self, data: bytes, passwords: Sequence[str]) -> None:
        """Opens a document with the first of `passwords` that opens it.

        Raises:
            LockedError: none opens it.
            PdfiumError: the file is malformed.
        """
        self._document = _open(data, passwords)
        self.is_form: bool = self._document.get_formtype() != pdfium.FORMTYPE_NONE
        if self.is_form:
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
                text = str(text_page.get_text_bounded()).replace("\r\n", "\n")
                # U+0002 may also be the code of a glyph without a character. The other function tells them apart.
                if "\x02" in text and "\x02" not in text_page.get_text_range():
                    text = _LINE_END_HYPHEN.sub("-\n", text)
            finally:
                text_page.close()
            return with_values(text, self._values(page)) if self.is_form else text
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
                    and pdfium.FPDFAnnot_GetFormFieldType(form, annotation) in _TEXT_FIELDS
                    and not pdfium.FPDFAnnot_GetFormFieldFlags(form, annotation) & _PASSWORD_FLAG
                ):
                    name = _string(pdfium.FPDFAnnot_GetFormFieldName, form, annotation)
                    yield name, _string(pdfium.FPDFAnnot_GetFormFieldValue, form, annotation)
            finally:
                pdfium.FPDFPage_CloseAnnot(annotation)


def _open(data: bytes, passwords: Sequence[str]) -> Any:
    for password in passwords:
        try:
            return pypdfium2.PdfDocument(data, password=password or None)
        except pypdfium2.PdfiumError as error:
            if "password" not in str(error).lower():
                raise
    raise LockedError


def _string(function: Callable[..., int], form: Any, annotation: Any) -> str:
    """Returns the string that a pdfium function writes into a buffer of UTF-16."""
    size = function(form, annotation, None, 0)
    buffer = ctypes.create_string_buffer(size)
    function(form, annotation, ctypes.cast(buffer, ctypes.POINTER(ctypes.c_ushort)), size)
    return buffer.raw.decode("utf-16-le", "replace").rstrip("\0")
