"""Files and folders as one finds them: PDF, parquet, JSONL and text."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, Self

from pydantic import Field

from trfmoe_core.data.documents import FileReport, SourceFile, Unit, printable
from trfmoe_core.data.files import find_files
from trfmoe_core.data.pdf.engines import choose_engine
from trfmoe_core.data.pdf.extract import Extraction, extract_all, text_path
from trfmoe_core.data.pdf.reader import PdfLimits
from trfmoe_core.data.sources.base import SOURCES, Context, Source, SourceSettings


class FilesSettings(SourceSettings):
    """`{path: FILE_OR_FOLDER}`, the source of a plain string."""

    source: Literal["files"]
    path: str = Field(min_length=1)

    def resolved(self, absolute: Callable[[str], str]) -> Self:
        """Returns the entry with absolute paths."""
        return self.model_copy(update={"path": absolute(self.path)})

    def open(self, context: Context) -> Source:
        """Returns the files below the path."""
        return open_paths([self.path], self, context)


def open_paths(paths: Sequence[str], settings: SourceSettings, context: Context) -> Source:
    """Returns the files below several paths as one source; PDFs are extracted into the cache."""
    files = find_files(paths)
    pdfs = [file for file in files if file.report is None and file.kind == "pdf"]
    how = Extraction(
        engine=choose_engine(context.config.pdf.engine),
        limits=PdfLimits(context.config.file_timeout_s, context.config.file_memory_mb),
        drop_headers=context.config.pdf.drop_headers,
    )
    texts = extract_all(
        pdfs, how, context.cache_dir, progress=lambda done, total: context.progress("PDFs read", done, total)
    )
    found: list[SourceFile] = []
    units: list[Unit] = []
    for file in files:
        if file.report is None and file.kind == "pdf":
            text = texts[file.sha256]
            report = FileReport(
                printable(file.path),
                file.kind,
                text.status,
                text.pages,
                text.characters,
                printable(text.detail),
                text.page_errors,
            )
            if text.size:
                identity = ("pdf", text.text_sha256)
                units.append(
                    Unit(file, identity, text_file=text_path(file.sha256, how, context.cache_dir), told=report)
                )
            else:
                file = replace(file, report=report)
        elif file.report is None:
            units.append(Unit(file, (file.kind, file.sha256)))
        found.append(file)
    name = ", ".join(printable(path) for path in paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
    return Source(name, settings, found, units)


SOURCES.add("files", FilesSettings)
