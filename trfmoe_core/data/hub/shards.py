"""The parquet files of a download and the record of its progress, `progress.json` beside them.

Both are complete at any time: a download that was killed continues after its last file.
"""

import hashlib
import io
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trfmoe_core.atomic import write_bytes, write_text
from trfmoe_core.data.formats.parquet_columns import TEXT_COLUMN

PROVENANCE = (
    "id", "dump", "url", "date", "file_path", "language", "language_score", "token_count", "score", "int_score",
)  # fmt: skip
"""The other columns of FineWeb and FineWeb-Edu. They are kept beside the text for the owner of the data."""
PROGRESS = "progress.json"
_NUMBERS = {"language_score": float, "score": float, "token_count": int, "int_score": int}


class DiskError(OSError):
    """The disk failed, and not the hub."""


@dataclass(frozen=True)
class Shard:
    """One parquet file of a download: its name, rows, size in bytes and digest."""

    name: str
    rows: int
    size: int
    sha256: str


@dataclass(frozen=True)
class Download:
    """What has been downloaded so far.

    Attributes:
        source: the data set's `HubSet.key`.
        revision: commit that it comes from; empty for a local copy.
        shards: the files, in the order of the data set.
        state: position of the stream after the last row, as JSON values.
        complete: True if the stream has ended.
        skipped: number of rows without text.
    """

    source: str
    revision: str
    shards: list[Shard] = field(default_factory=list)
    state: Any = None
    complete: bool = False
    skipped: int = 0

    @property
    def rows(self) -> int:
        """Number of documents."""
        return sum(shard.rows for shard in self.shards)


def read_progress(folder: Path) -> Download | None:
    """Returns the progress recorded in `folder`, or None if there is none or a file is missing or cut off."""
    try:
        raw = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
        shards = [Shard(**shard) for shard in raw.pop("shards")]
        whole = all((folder / shard.name).stat().st_size == shard.size for shard in shards)
        return Download(shards=shards, **raw) if whole else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_shard(
    folder: Path, done: Download, rows: list[dict[str, Any]], state: Any, skipped: int, *, complete: bool = False
) -> Download:
    """Writes `rows` as the next file and records the progress. Returns the new progress.

    Args:
        folder: where the files are.
        done: the progress so far.
        rows: the rows to write; none only updates the record.
        state: position of the stream after these rows.
        skipped: rows without text so far.
        complete: True if the stream has ended.

    Raises:
        DiskError: a file cannot be written.
    """
    shards = list(done.shards)
    try:
        if rows:
            data = _parquet(rows)
            name = f"shard-{len(shards):05d}.parquet"
            write_bytes(folder / name, data)
            shards.append(Shard(name, len(rows), len(data), hashlib.sha256(data).hexdigest()))
        after = Download(done.source, done.revision, shards, state, complete, skipped)
        write_text(folder / PROGRESS, json.dumps(asdict(after)))
    except OSError as error:
        raise DiskError(*error.args) from error
    return after


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {}
    for name in (TEXT_COLUMN, *PROVENANCE):
        values = [_plain(row[name], _NUMBERS.get(name, str)) for row in rows]
        if any(value is not None for value in values):
            kind = {str: pa.large_string(), float: pa.float64(), int: pa.int64()}[_NUMBERS.get(name, str)]
            columns[name] = pa.array(values, kind)
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, row_group_size=1000, compression="zstd")
    return sink.getvalue()


def _plain(value: Any, kind: type) -> Any:
    """Returns the value converted to `kind`, or None if it cannot be converted."""
    if value is None:
        return None
    if kind is str:
        return str(value).encode("utf-8", "replace").decode()
    try:
        return kind(value)
    except (TypeError, ValueError, OverflowError):
        return None
