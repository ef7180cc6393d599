"""One interface to the PDF libraries. Only the worker process opens documents with it."""

import struct
import zlib
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Literal, Protocol

EngineName = Literal["pdfium", "pypdf"]
EngineChoice = Literal["auto", "pdfium", "pypdf"]
"""auto: pdfium, and pypdf for the files and pages that pdfium cannot read."""

PACKAGES: dict[EngineName, str] = {"pdfium": "pypdfium2", "pypdf": "pypdf"}

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


class Document(Protocol):
    """An open document.

    Attributes:
        fields_cut: form fields with much more text than they show, of the pages that were read.
        is_xfa: True for a form whose pages are made by the viewer and are not in the file.
    """

    fields_cut: int
    is_xfa: bool

    def __len__(self) -> int:
        """Number of pages."""
        ...

    def text(self, number: int) -> str:
        """Returns the raw text of page `number`, counted from 0, inside its crop box.

        Lines end in one newline. A hyphen at a line's end is `-` before the newline. The values of filled form fields
        follow the text, each on lines of its own.
        """
        ...

    def is_overlaid(self, number: int) -> bool:
        """Returns True if most letters of page `number` stand on equal ones, as far as the engine can tell."""
        ...

    def attachments(self) -> Iterator[tuple[str, bytes]]:
        """Yields name and content of every attached file."""
        ...

    def close(self) -> None:
        """Releases the document's memory."""
        ...


def engines_of(choice: EngineChoice) -> tuple[EngineName, ...]:
    """Returns the engines to use, the preferred one first."""
    return ("pdfium", "pypdf") if choice == "auto" else (choice,)


def engine_version(choice: EngineChoice) -> str:
    """Returns names and versions of the engines, for cache keys."""
    return ", ".join(f"{name} {version(name)}" for name in (PACKAGES[engine] for engine in engines_of(choice)))


def file_errors(name: EngineName) -> tuple[type[Exception], ...]:
    """Returns the exceptions that a malformed file or page causes."""
    if name == "pdfium":
        import pypdfium2

        return (*FILE_ERRORS, pypdfium2.PdfiumError)
    from pypdf.errors import DependencyError, DeprecationError, PyPdfError

    return (*FILE_ERRORS, PyPdfError, DependencyError, DeprecationError)


def open_document(name: EngineName, data: bytes, passwords: Sequence[str]) -> Document:
    """Opens a document with the empty password or the first of `passwords` that opens it.

    Raises:
        LockedError: none opens it.
        Exception: one of `file_errors(name)`: the file is malformed.
    """
    if name == "pdfium":
        from trfmoe_core.data.pdf.pdfium_document import PdfiumDocument

        return PdfiumDocument(data, ["", *passwords])
    from trfmoe_core.data.pdf.pypdf_document import PypdfDocument

    return PypdfDocument(data, ["", *passwords])
