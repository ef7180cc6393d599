"""Files and folders with any mixture of the known formats."""

import codecs
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field

from trfmoe_core.config.sources import SOURCES, Partition
from trfmoe_core.counts import counted
from trfmoe_core.data.documents.records import ReadOptions, SourceFile, Unit
from trfmoe_core.data.documents.reports import FileReport, printable, shortened
from trfmoe_core.data.extraction.extract import Content, Extraction, content_of, extract_all, text_path
from trfmoe_core.data.extraction.extractor import FileLimits
from trfmoe_core.data.formats.base import ReadLog, format_of
from trfmoe_core.data.formats.boundary import boundary
from trfmoe_core.data.sources.base import DataSource, OpenContext, OpenedSource
from trfmoe_core.data.sources.digests import DigestCache
from trfmoe_core.data.sources.find import check_path, describe_path, find_files
from trfmoe_core.data.sources.partition import deal_units, row_ranges, shared_identity
from trfmoe_core.errors import DataError
from trfmoe_core.places import expand


def _codec(name: str) -> str:
    try:
        codec = codecs.lookup(name) if name else None
        "".encode(name or "utf-8")
    except (LookupError, ValueError) as error:
        raise ValueError(f"{shortened(name)!r} is unknown; name one such as cp1252, koi8-r or shift_jis") from error
    return codec.name if codec else ""


Encoding = Annotated[str, AfterValidator(_codec)]
Languages = Annotated[
    list[str],
    BeforeValidator(lambda raw: [raw] if isinstance(raw, str) else raw, json_schema_input_type=str | list[str]),
]


@SOURCES.register("files")
class FilesSource(DataSource):
    """`{path: FILE_OR_FOLDER}`. An entry that is a plain string is this source too."""

    source: Literal["files"] = Field(description="files; may be left out", examples=["files"])
    path: str = Field(min_length=1, description="a file, or a folder with everything in it", examples=["papers"])
    languages: Languages = Field(
        default_factory=list,
        description="only rows and objects whose field `language` is one of these are read, and no files without it",
        examples=[["en", "de"]],
    )
    encoding: Encoding = Field(
        "", description="the encoding of text, JSON and HTML files; empty: it is found out", examples=["cp1252"]
    )
    passwords: str | None = Field(
        None, min_length=1, description="a file with one password per line, for PDFs", examples=["passwords.txt"]
    )

    def resolved(self, absolute: Callable[[str], str]) -> Self:
        """Returns the entry with absolute paths."""
        return self.model_copy(
            update={"path": absolute(self.path), "passwords": self.passwords and absolute(self.passwords)}
        )

    def check(self, context: OpenContext) -> None:
        """Makes sure that there is a file of a known format, and the file of passwords.

        Raises:
            DataError: there is none, or one cannot be read.
        """
        check_path(self.path)
        _read_passwords(self.passwords)

    def found(self, context: OpenContext) -> str:
        """Returns the path and how many files of which kind are below it."""
        return f"{self.path}: {describe_path(self.path)}"

    def open(self, context: OpenContext) -> OpenedSource:
        """Returns the files below the path.

        Raises:
            DataError: the path or the file of passwords cannot be read.
        """
        options = ReadOptions(languages=lowered(self.languages), encoding=self.encoding)
        return open_paths([self.path], self, context, options=options, passwords=self.passwords)


def open_paths(
    paths: Sequence[str],
    settings: DataSource,
    context: OpenContext,
    *,
    options: ReadOptions | None = None,
    passwords: str | None = None,
) -> OpenedSource:
    """Returns this node's part of the files below several paths as one source, with all text extracted.

    Args:
        paths: files and folders.
        settings: the entry of `data` that leads to these paths.
        context: how to read, and where extracted text is kept.
        options: which languages, and which encoding; None: all, and it is found out.
        passwords: a file with one password per line, for PDFs.

    Raises:
        DataError: a path or the file of passwords cannot be read.
    """
    part = settings.part()
    options = options or ReadOptions()
    digests = DigestCache.of(paths, context.cache_dir)
    found = [_filtered(file, options) for file in find_files(paths, digests, context.cache_dir)]
    units, files = _divided(found, part, options, context.config.piece_bytes)
    texts = _texts(
        [unit.file for unit in units if format_of(unit.file.kind).is_extracted], passwords, options.encoding, context
    )
    refused: dict[Path, FileReport] = {}
    ready: list[Unit] = []
    for unit in units:
        if content_of(unit.file) not in texts:
            ready += [replace(smaller, options=unit.options).identified() for smaller in _split(unit)]
            continue
        report, text_file, text_sha256 = texts[content_of(unit.file)]
        report = replace(report, path=unit.file.shown)
        if text_file is None:
            refused[unit.file.path] = report
        else:
            identity = (unit.file.kind, text_sha256, *shared_identity(unit.options))
            ready.append(replace(unit, identity=identity, text_file=text_file, extracted=report))
    named = ", ".join(printable(path) for path in paths[:3])
    return OpenedSource(
        name=named if len(paths) <= 3 else f"{named} and {len(paths) - 3} more",
        settings=settings,
        files=[replace(file, report=refused[file.path]) if file.path in refused else file for file in files],
        units=ready,
        notes=[f"part {part.index} of {part.of}: this node has {counted(len(files), 'file')}"] if part.of > 1 else [],
        partitioned=part.of > 1,
    )


def lowered(languages: Sequence[str]) -> tuple[str, ...]:
    """Returns the languages as `ReadOptions` has them."""
    return tuple(sorted(language.casefold() for language in languages))


def _filtered(file: SourceFile, options: ReadOptions) -> SourceFile:
    """Returns the file; refused if it cannot say which of its text is in the languages that are asked for."""
    if file.report is not None or not options.languages or format_of(file.kind).tells_language:
        return file
    detail = "`languages` cannot be applied: files of this kind have no field `language`; give them in another entry"
    return replace(file, report=FileReport(file.shown, file.kind, "unsupported", detail=detail))


def _split(unit: Unit) -> list[Unit]:
    """Returns the parts of a unit. If it cannot be divided it stays whole, and reading it says why."""
    with boundary(unit.file, ReadLog()):
        return format_of(unit.file.kind).split(unit)
    return [unit]


def _num_rows(unit: Unit) -> int:
    """Returns the number of rows of a file; 0 if they cannot be counted, and reading it says why."""
    with boundary(unit.file, ReadLog()):
        return sum(format_of(unit.file.kind).group_rows(unit.file.path))
    return 0


def _divided(
    files: list[SourceFile], part: Partition, options: ReadOptions, piece_bytes: int
) -> tuple[list[Unit], list[SourceFile]]:
    """Returns this node's units, one per file, and their files together with the refused ones.

    Every format says how its files are shared (`Format.shared_by`). The first node reports the refused files.
    """
    good = [Unit(file, options=options) for file in files if file.report is None]
    if part.of == 1:
        return good, files
    tables = [unit for unit in good if format_of(unit.file.kind).shared_by == "rows"]
    others = [unit for unit in good if format_of(unit.file.kind).shared_by != "rows"]
    mine = deal_units(others, part, piece_bytes)
    rows = [_num_rows(unit) for unit in tables]
    for unit, count, (start, stop) in zip(tables, rows, row_ranges(rows, part), strict=True):
        # A table without rows is most likely a broken one: the first node reports it.
        if start < stop or (count == 0 and part.index == 0):
            mine.append(replace(unit, start=start, stop=stop if count else None))
    by_path = {unit.file.path: unit for unit in mine}
    refused = {file.path for file in files if file.report is not None and part.index == 0}
    kept = [file for file in files if file.path in by_path or file.path in refused]
    return [by_path[file.path] for file in kept if file.report is None], kept


def _texts(
    files: list[SourceFile], passwords: str | None, encoding: str, context: OpenContext
) -> dict[Content, tuple[FileReport, Path | None, str]]:
    """Returns for every file, by its content: its report, the file of its text if it has any, and the text's digest."""
    if not files:
        return {}
    config = context.config
    how = Extraction(
        engine=config.pdf.engine,
        limits=FileLimits(config.file_timeout_s, config.file_memory_mb),
        drop_headers=config.pdf.drop_headers,
        passwords=_read_passwords(passwords),
        encoding=encoding,
    )
    texts = extract_all(
        files, how, context.cache_dir, progress=lambda done, total: context.progress("files read", done, total)
    )
    found = {}
    for file in files:
        text = texts[content_of(file)]
        report = FileReport(
            "", file.kind, text.status, text.pages, text.characters, printable(text.detail), text.page_errors
        )
        path = text_path(file, how, context.cache_dir) if text.size else None
        found[content_of(file)] = (report, path, text.text_sha256)
    return found


def _read_passwords(path: str | None) -> tuple[str, ...]:
    if path is None:
        return ()
    try:
        lines = expand(path).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(
            f"passwords: {printable(path)}: cannot be read ({error}); give a text file with one password per line"
        ) from error
    return tuple(dict.fromkeys(line for line in lines if line))
