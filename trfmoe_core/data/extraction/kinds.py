"""The formats whose text is extracted: how each is read, and with which library."""

from importlib.metadata import version

from trfmoe_core.data.documents.extracted import Reading
from trfmoe_core.data.pdf.document_text import Options
from trfmoe_core.data.pdf.engines import PACKAGES, EngineChoice, engine_version, engines_of

_MARKUP_LIBRARY = "lxml"


def read(kind: str, data: bytes, options: Options, encoding: str) -> Reading:
    """Returns the reading of a file. Libraries are imported on first use.

    Args:
        kind: its format.
        data: its content.
        options: how to read PDFs.
        encoding: the codec of a web page; empty: it is found out.
    """
    if kind == "pdf":
        from trfmoe_core.data.pdf.document_text import read_pdf

        return read_pdf(data, options)
    from trfmoe_core.data.markup.read import read_markup

    return read_markup(kind, data, encoding)


def load(kind: str, engine: EngineChoice) -> None:
    """Imports what reading the format needs. The second engine for PDFs is imported when it is needed."""
    if kind == "pdf":
        from trfmoe_core.data.pdf.engines import file_errors

        file_errors(engines_of(engine)[0])
    else:
        import trfmoe_core.data.markup.read  # noqa: F401


def package_of(kind: str, engine: EngineChoice) -> str:
    """Returns the name of the package that reads the format."""
    return PACKAGES[engines_of(engine)[0]] if kind == "pdf" else _MARKUP_LIBRARY


def version_of(kind: str, engine: EngineChoice) -> str:
    """Returns names and versions of the libraries that read the format, for cache keys."""
    return engine_version(engine) if kind == "pdf" else f"{_MARKUP_LIBRARY} {version(_MARKUP_LIBRARY)}"
