"""Files and folders as one finds them: PDF, parquet, JSONL and text."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field

from trfmoe_core.config.sources import SOURCES, Partition
from trfmoe_core.data.documents.records import ReadOptions, SourceFile, Unit
from trfmoe_core.data.documents.reports import FileReport, printable
from trfmoe_core.data.formats.base import FORMATS
from trfmoe_core.data.formats.parquet import ParquetFormat
from trfmoe_core.data.pdf.engines import choose_engine
from trfmoe_core.data.pdf.extract import Extraction, extract_all, text_path
from trfmoe_core.data.pdf.reader import PdfLimits
from trfmoe_core.data.sources.base import Context, DataSource, Source
from trfmoe_core.data.sources.digests import Digests
from trfmoe_core.data.sources.find import find_files
from trfmoe_core.data.sources.partition import deal_files, row_ranges
from trfmoe_core.errors import DataError

Languages = Annotated[list[str], BeforeValidator(lambda raw: [raw] if isinstance(raw, str) else raw)]


class FilesSettings(DataSource):
    """`{path: FILE_OR_FOLDER}`, the source of a plain string."""

    source: Literal["files"]
    path: str = Field(min_length=1)
    languages: Languages = Field(
        default_factory=list, description="rows and lines whose own `language` is none of these are left out"
    )
    passwords: str | None = Field(None, min_length=1, description="a file with one password a line, for PDFs")

    def resolved(self, absolute: Callable[[str], str]) -> Self:
        """Returns the entry with absolute paths."""
        return self.model_copy(
            update={"path": absolute(self.path), "passwords": self.passwords and absolute(self.passwords)}
        )

    def open(self, context: Context) -> Source:
        """Returns the files below the path."""
        return open_paths([self.path], self, context)


def open_paths(paths: Sequence[str], settings: FilesSettings, context: Context) -> Source:
    """Returns the files below several paths as one source; PDFs are extracted into the cache.

    Raises:
        DataError: a path or the file of passwords cannot be read.
    """
    share = settings.my_part()
    units, files = _dealt(find_files(paths, Digests.of(paths, context.cache_dir)), share, settings)
    texts = _pdf_texts([unit.file for unit in units if unit.file.kind == "pdf"], settings, context)
    refused: dict[Path, FileReport] = {}
    ready: list[Unit] = []
    for unit in units:
        if unit.file.kind != "pdf":
            ready += [part.identified() for part in FORMATS[unit.file.kind].split(unit)]
            continue
        told, text_file, text_sha256 = texts[unit.file.sha256]
        told = replace(told, path=printable(unit.file.path))
        if text_file is None:
            refused[unit.file.path] = told
        else:
            ready.append(replace(unit, identity=("pdf", text_sha256), text_file=text_file, told=told))
    named = ", ".join(printable(path) for path in paths[:3])
    return Source(
        name=named if len(paths) <= 3 else f"{named} and {len(paths) - 3} more",
        settings=settings,
        files=[replace(file, report=refused[file.path]) if file.path in refused else file for file in files],
        units=ready,
        notes=[f"part {share.index} of {share.of}: {len(files)} files are this node's"] if share.of > 1 else [],
    )


def _dealt(files: list[SourceFile], part: Partition, settings: FilesSettings) -> tuple[list[Unit], list[SourceFile]]:
    """Returns this node's units, a file each, and the files that they and the refused ones belong to."""
    languages = tuple(sorted(language.casefold() for language in settings.languages))
    plain = ReadOptions(languages=languages)
    good = [file for file in files if file.report is None]
    if part.of == 1:
        return [Unit(file, (), options=plain) for file in good], files
    tables = [file for file in good if file.kind == "parquet"]
    whole = [file for file in good if file.kind in ("text", "pdf")]
    parquet = FORMATS["parquet"]
    assert isinstance(parquet, ParquetFormat)
    rows = [sum(parquet.rows(file.path)) for file in tables]
    mine: dict[Path, Unit] = {}
    for file, count, (start, stop) in zip(tables, rows, row_ranges(rows, part), strict=True):
        # A table without rows is most likely a broken one: the first node reports it.
        if start < stop or (count == 0 and part.index == 0):
            mine[file.path] = Unit(file, (), start=start, stop=stop if count else None, options=plain)
    sizes = [file.stamp.size if file.stamp else 0 for file in whole]
    for number in deal_files(sizes, part):
        mine[whole[number].path] = Unit(whole[number], (), options=plain)
    for turn, file in enumerate(file for file in good if file.kind not in ("parquet", "text", "pdf")):
        # Line by line; where a file's lines do not come out even, another node gets the next one's odd line.
        options = replace(plain, index=(part.index + turn) % part.of, of=part.of)
        mine[file.path] = Unit(file, (), options=options)
    refused = [file for file in files if file.report is not None and part.index == 0]
    chosen = {file.path for file in refused} | mine.keys()
    kept = [file for file in files if file.path in chosen]
    return [mine[file.path] for file in kept if file.report is None], kept


def _pdf_texts(
    files: list[SourceFile], settings: FilesSettings, context: Context
) -> dict[str, tuple[FileReport, Path | None, str]]:
    """Returns by SHA-256 what became of PDFs, and where the text of those that have one lies, with its digest."""
    if not files:
        return {}
    config = context.config
    how = Extraction(
        engine=choose_engine(config.pdf.engine),
        limits=PdfLimits(config.file_timeout_s, config.file_memory_mb),
        drop_headers=config.pdf.drop_headers,
        passwords=_passwords(settings.passwords),
    )
    texts = extract_all(
        files, how, context.cache_dir, progress=lambda done, total: context.progress("PDFs read", done, total)
    )
    found = {}
    for digest, text in texts.items():
        report = FileReport(
            "", "pdf", text.status, text.pages, text.characters, printable(text.detail), text.page_errors
        )
        path = text_path(digest, how, context.cache_dir) if text.size else None
        found[digest] = (report, path, text.text_sha256)
    return found


def _passwords(path: str | None) -> tuple[str, ...]:
    if path is None:
        return ()
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(
            f"passwords: {printable(path)}: cannot be read ({error}); give a text file with one password a line"
        ) from error
    return tuple(dict.fromkeys(line for line in lines if line))


SOURCES.add("files", FilesSettings)
