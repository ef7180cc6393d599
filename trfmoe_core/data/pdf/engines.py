"""One interface to the PDF libraries. Only the worker process opens documents with it."""

import importlib.util
import io
import struct
import zlib
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Literal

EngineName = Literal["pypdf", "pdfium"]

# Exceptions that malformed files cause besides the engines' own.
FILE_ERRORS: tuple[type[Exception], ...] = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


class LockedError(Exception):
    """The document is encrypted, and none of the passwords opens it."""


def choose_engine(wanted: Literal["auto", "pypdf", "pdfium"]) -> EngineName:
    """Returns the engine to use. `auto` is pdfium if it is installed, otherwise pypdf."""
    if wanted == "auto":
        return "pdfium" if importlib.util.find_spec("pypdfium2") else "pypdf"
    return wanted


def engine_version(name: EngineName) -> str:
    """Returns name and version of the engine, for cache keys."""
    package = {"pypdf": "pypdf", "pdfium": "pypdfium2"}[name]
    return f"{package} {version(package)}"


def file_errors(name: EngineName) -> tuple[type[Exception], ...]:
    """Returns the exceptions that a malformed file or page causes."""
    if name == "pdfium":
        import pypdfium2

        return (*FILE_ERRORS, pypdfium2.PdfiumError)
    from pypdf.errors import DependencyError, DeprecationError, PyPdfError

    return (*FILE_ERRORS, PyPdfError, DependencyError, DeprecationError)


class Pages:
    """The pages of an open document, with the raw text of each."""

    def __init__(self, name: EngineName, data: bytes, passwords: Sequence[str]) -> None:
        """Opens a document with the empty password or the first of `passwords` that opens it.

        Raises:
            LockedError: none opens it.
        """
        self._name = name
        self._document: Any = (_open_pdfium if name == "pdfium" else _open_pypdf)(data, ["", *passwords])

    def __len__(self) -> int:
        """Number of pages."""
        return len(self._document if self._name == "pdfium" else self._document.pages)

    def text(self, number: int) -> str:
        """Returns the text of page `number`, counted from 0, as the engine gives it."""
        if self._name == "pypdf":
            return str(self._document.pages[number].extract_text())
        page = self._document[number]
        try:
            text_page = page.get_textpage()
            try:
                return str(text_page.get_text_bounded())
            finally:
                text_page.close()
        finally:
            page.close()


def _open_pypdf(data: bytes, passwords: Sequence[str]) -> Any:
    import pypdf

    reader = pypdf.PdfReader(io.BytesIO(data), strict=False)
    if reader.is_encrypted and not any(reader.decrypt(password) for password in passwords):
        raise LockedError
    return reader


def _open_pdfium(data: bytes, passwords: Sequence[str]) -> Any:
    import pypdfium2

    for password in passwords:
        try:
            return pypdfium2.PdfDocument(data, password=password or None)
        except pypdfium2.PdfiumError as error:
            if "password" not in str(error).lower():
                raise
    raise LockedError
