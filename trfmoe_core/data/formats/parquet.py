"""Parquet: one document per row. Only the column `text` is required."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from trfmoe_core.data.documents.opening import open_examined
from trfmoe_core.data.documents.records import Document, Unit
from trfmoe_core.data.documents.reports import first_line
from trfmoe_core.data.formats.base import FORMATS, Format, ReadLog

TEXT_COLUMN = "text"
PROVENANCE = (
    "id", "dump", "url", "date", "file_path", "language", "language_score", "token_count", "score", "int_score",
)  # fmt: skip
"""The other columns of FineWeb and FineWeb-Edu. They are kept as metadata if the file has them."""
UNIT_ROWS = 8192
MAX_BYTES = 1 << 26
"""A row with more text is left out. A file with a row group whose rows are larger on average is not read at all."""
_BATCH_ROWS = 128
# With a buffer, arrow reads page by page; without one it holds a row group's whole column in memory.
_BUFFER_BYTES = 1 << 20


@FORMATS.register("parquet")
class ParquetFormat(Format):
    """`.parquet`."""

    suffixes = (".parquet",)
    shared_by = "rows"

    def group_rows(self, path: Path) -> list[int]:
        """Returns the number of rows of every row group, from the footer; an empty list if it cannot be read."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(path) as file:
                metadata = file.metadata
                return [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        except (pa.ArrowException, OSError):
            return []

    def split(self, unit: Unit) -> list[Unit]:
        """Returns units of about `UNIT_ROWS` rows that end where row groups end, or where `unit` itself does."""
        borders = [0]
        for rows in self.group_rows(unit.file.path):
            borders.append(borders[-1] + rows)
        start, stop = unit.start, borders[-1] if unit.stop is None else min(unit.stop, borders[-1])
        if start >= stop:
            return [unit]
        cuts = [start]
        for border in borders:
            if cuts[-1] + UNIT_ROWS <= border < stop:
                cuts.append(border)
        return [replace(unit, start=first, stop=last) for first, last in zip(cuts, [*cuts[1:], stop], strict=True)]

    def read(self, unit: Unit, log: ReadLog) -> Iterator[Document]:
        """Yields the texts of the unit's rows, with the other columns as metadata."""
        with open_examined(unit.file) as opened:
            yield from _documents(opened, unit, log)


def _documents(opened: BinaryIO, unit: Unit, log: ReadLog) -> Iterator[Document]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    missing, other, large = 0, 0, 0
    try:
        with pq.ParquetFile(opened, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
            problem = _column_problem(file.schema_arrow)
            if problem:
                log.fail("broken", problem)
                return
            if oversized := _oversized(file):
                log.fail("too-large", f"row group {oversized[0]}: {oversized[1] >> 20} MiB a row")
                return
            for number, text, meta in _rows(file, unit.start, unit.stop):
                if unit.options.excludes_language(meta.get("language")):
                    other += 1
                elif text is None:
                    missing += 1
                elif len(text) > MAX_BYTES:
                    large += 1
                else:
                    yield Document(text.decode("utf-8", "replace"), f"row {number}", meta)
    except (pa.ArrowException, OSError) as error:
        log.fail("broken", f"no whole parquet file: {first_line(error)}")
    if large:
        log.fail("too-large", f"{large} rows of more than {MAX_BYTES >> 20} MiB")
    if missing:
        log.note(f"{missing} rows without text")
    if other:
        log.note(f"{other} rows in other languages left out")


def _rows(file: Any, start: int, stop: int | None) -> Iterator[tuple[int, bytes | None, dict[str, object]]]:
    """Yields (number, text, metadata) of the rows from `start` up to `stop`, with few rows in memory at a time."""
    groups: list[int] = []
    first, position = start, 0
    for group in range(file.metadata.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if position + rows > start and (stop is None or position < stop):
            if not groups:
                first = position
            groups.append(group)
        position += rows
    names = [TEXT_COLUMN, *_provenance(file.schema_arrow)]
    number = first
    for batch in file.iter_batches(batch_size=_BATCH_ROWS, row_groups=groups, columns=names, use_threads=False):
        low, high = max(0, start - number), batch.num_rows if stop is None else min(batch.num_rows, stop - number)
        if low < high:
            part = batch.slice(low, high - low)
            texts = _binary(part.column(TEXT_COLUMN)).to_pylist()
            others = [part.column(name).to_pylist() for name in names[1:]]
            for index, text in enumerate(texts):
                meta = {name: values[index] for name, values in zip(names[1:], others, strict=True)}
                yield number + low + index, text, meta
        number += batch.num_rows
        if stop is not None and number >= stop:
            return


def _oversized(file: Any) -> tuple[int, int] | None:
    """Returns the first row group whose rows are too large on average, and their average size; by the footer."""
    for group in range(file.metadata.num_row_groups):
        group_metadata = file.metadata.row_group(group)
        average = group_metadata.total_byte_size // max(1, group_metadata.num_rows)
        if group_metadata.num_rows and average > MAX_BYTES:
            return group, average
    return None


def _provenance(schema: Any) -> list[str]:
    """Returns the columns of `PROVENANCE` that the file has exactly once and that hold plain values."""
    import pyarrow.types as types

    plain = (types.is_string, types.is_large_string, types.is_integer, types.is_floating, types.is_timestamp)
    return [
        name
        for name in PROVENANCE
        if schema.names.count(name) == 1 and any(test(schema.field(name).type) for test in plain)
    ]


def _column_problem(schema: Any) -> str:
    """Returns why the text column cannot be read; empty if it can."""
    import pyarrow as pa

    columns = [name for name in schema.names if name == TEXT_COLUMN]
    if len(columns) != 1:
        return f"no column {TEXT_COLUMN!r}; it has {', '.join(schema.names[:24]) or 'none'}"
    kind = schema.field(TEXT_COLUMN).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        return f"column {TEXT_COLUMN!r} holds {kind}, not strings"
    return ""


def _binary(column: Any) -> Any:
    """Returns strings as bytes, because some writers put bytes that are not UTF-8 into string columns."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(pa.large_binary())
