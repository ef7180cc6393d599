"""Parquet: one document a row, read batch by batch; only the column `text` is required."""

from collections.abc import Iterator
from typing import Any

from trfmoe_core.data.documents import Document, Unit
from trfmoe_core.data.formats.base import FORMATS, Log

TEXT_COLUMN = "text"
_BATCH_ROWS = 128


class ParquetFormat:
    """`.parquet`."""

    suffixes: tuple[str, ...] = (".parquet",)
    packed = False
    cleaned = False

    def read(self, unit: Unit, log: Log) -> Iterator[Document]:
        """Yields the texts of the unit's rows."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        missing, row = 0, 0
        try:
            with pq.ParquetFile(unit.file.path) as file:
                problem = _column_problem(file.schema_arrow)
                if problem:
                    log.spoilt("broken", problem)
                    return
                for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=[TEXT_COLUMN]):
                    for value in _binary(batch.column(0)).to_pylist():
                        row += 1
                        if value is None:
                            missing += 1
                            continue
                        yield Document(value.decode("utf-8", "replace"), f"row {row}")
        except (pa.ArrowException, OSError) as error:
            log.spoilt("broken", f"no whole parquet file: {_first_line(error)}")
        else:
            if missing:
                log.note(f"{missing} rows without text")


def _column_problem(schema: Any) -> str:
    """Returns what keeps the text column from being read, or nothing."""
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
    """Strings as bytes: writers exist that put other bytes than UTF-8 into string columns."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(pa.large_binary())


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return (text.splitlines()[0] if text else type(error).__name__)[:200]


FORMATS.add("parquet", ParquetFormat())
