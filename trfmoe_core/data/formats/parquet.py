"""Parquet: one document per row. Only the column of texts is read, and `language` where an entry filters by it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from trfmoe_core.counts import counted
from trfmoe_core.data.documents.encoding import NotTextError, decode
from trfmoe_core.data.documents.opening import open_examined, open_plain
from trfmoe_core.data.documents.records import Document, Unit
from trfmoe_core.data.documents.reports import first_line
from trfmoe_core.data.formats.base import FORMATS, Format, ReadLog
from trfmoe_core.data.formats.compression import FREE_BYTES, MAX_RATIO
from trfmoe_core.data.formats.parquet_columns import LANGUAGE_COLUMN, TEXT_COLUMN, ColumnError, find_column

UNIT_ROWS = 8192
MAX_BYTES = 1 << 26
"""A row with more text is left out. A file with a row group whose rows are larger on average is not read at all."""
_BATCH_BYTES = 1 << 24
_MIN_ROWS, _MAX_ROWS = 4, 128
# With a buffer, arrow reads page by page; without one it holds a row group's whole column in memory.
_BUFFER_BYTES = 1 << 20


@FORMATS.register("parquet")
class ParquetFormat(Format):
    """`.parquet`."""

    suffixes = (".parquet",)
    tells_language = True
    shared_by = "rows"

    @classmethod
    def recognises(cls, head: bytes) -> bool:
        """Returns True for parquet's signature."""
        return head.startswith(b"PAR1")

    def group_rows(self, path: Path) -> list[int]:
        """Returns the number of rows of every row group, from the footer; an empty list if it cannot be read."""
        import pyarrow as pa

        try:
            with open_plain(path) as opened:
                metadata = _reader(opened).metadata
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
        """Yields the texts of the unit's rows."""
        with open_examined(unit.file) as opened:
            yield from _documents(opened, unit, log)


def _documents(opened: BinaryIO, unit: Unit, log: ReadLog) -> Iterator[Document]:
    import pyarrow as pa

    missing, other, large, garbled, given = 0, 0, 0, 0, 0
    first = ""
    most = max(FREE_BYTES, MAX_RATIO * (unit.file.stamp.size if unit.file.stamp else 0))
    try:
        for number, data, language in _rows(opened, unit, most):
            if unit.options.excludes_language(language):
                other += 1
            elif data is None:
                missing += 1
            elif len(data) > MAX_BYTES:
                large += 1
            else:
                given += len(data)
                if given > most:
                    raise _TooLargeError(f"it inflates to more than {MAX_RATIO} times its size; the rest is left out")
                try:
                    yield Document(decode(data), f"row {number}")
                except NotTextError as error:
                    garbled += 1
                    first = first or f"row {number}: {error}"
    except ColumnError as error:
        log.fail("broken", str(error))
    except _TooLargeError as error:
        log.fail("too-large", str(error))
    except (pa.ArrowException, OSError) as error:
        log.fail("broken", f"no whole parquet file: {first_line(error)}")
    if large:
        log.fail("too-large", f"{large} rows of more than {MAX_BYTES >> 20} MiB")
    if garbled:
        log.fail("broken", f"{garbled} rows are no text, first {first}")
    if missing:
        log.note(f"{counted(missing, 'row')} without text")
    if other:
        log.note(f"{other} rows in other languages, or without one, left out")


class _TooLargeError(Exception):
    """The file would fill the memory."""


class _Row(NamedTuple):
    number: int
    text: bytes | None
    language: str | None


def _rows(opened: BinaryIO, unit: Unit, most: int) -> Iterator[_Row]:
    """Yields the unit's rows, with few in memory at a time.

    Raises:
        ColumnError: the file has no column of texts, or none of languages although the unit filters by them.
        _TooLargeError: by its footer, the column of texts holds more than `most` bytes, or huge rows.
    """
    reader = _reader(opened)
    metadata = reader.metadata
    columns = [find_column(metadata.schema, TEXT_COLUMN)]
    if unit.options.languages:
        try:
            columns.append(find_column(metadata.schema, LANGUAGE_COLUMN))
        except ColumnError as error:
            raise ColumnError(f"`languages` cannot be applied: {error}") from error
    groups: list[int] = []
    first, position, largest = unit.start, 0, 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        size = metadata.row_group(group).column(columns[0]).total_uncompressed_size
        if rows and size // rows > MAX_BYTES:
            raise _TooLargeError(f"row group {group}: {size // rows >> 20} MiB a row")
        if size > most:
            raise _TooLargeError(f"row group {group}: its text inflates to more than {MAX_RATIO} times the file's size")
        if position + rows > unit.start and (unit.stop is None or position < unit.stop):
            first = first if groups else position
            groups.append(group)
            largest = max(largest, size)
        position += rows
    # A value may be as large as its row group's column, and in a dictionary it stands once for many rows.
    batch_rows = min(max(_BATCH_BYTES // max(largest, 1), _MIN_ROWS), _MAX_ROWS)
    number = first
    for batch in reader.iter_batches(batch_rows, row_groups=groups, column_indices=sorted(columns), use_threads=False):
        stop = batch.num_rows if unit.stop is None else min(batch.num_rows, unit.stop - number)
        text, *language = (_cells(batch.column(sorted(columns).index(column))) for column in columns)
        for index in range(max(0, unit.start - number), stop):
            value = language[0](index) if language else None
            yield _Row(number + index, text(index), None if value is None else value.decode("utf-8", "replace"))
        number += batch.num_rows
        if unit.stop is not None and number >= unit.stop:
            return


def _reader(opened: BinaryIO) -> Any:
    """Returns arrow's reader of an open file. Unlike `pyarrow.parquet.ParquetFile` it accepts every column name."""
    from pyarrow._parquet import ParquetReader

    reader = ParquetReader()
    reader.open(opened, buffer_size=_BUFFER_BYTES, pre_buffer=False)
    return reader


def _cells(column: Any) -> Callable[[int], bytes | None]:
    """Returns a function that gives a row's bytes. Strings are not decoded: some writers put other bytes there."""
    import pyarrow as pa

    while pa.types.is_struct(column.type):  # only one leaf of it was read
        column = column.field(0)
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if not pa.types.is_dictionary(column.type):
        return lambda index: _bytes(column[index])
    return lambda index: (
        _bytes(column.dictionary[column.indices[index].as_py()]) if column.is_valid()[index].as_py() else None
    )


def _bytes(value: Any) -> bytes | None:
    buffer = value.as_buffer()
    return None if buffer is None else bytes(buffer)
