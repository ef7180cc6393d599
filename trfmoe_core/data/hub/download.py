"""Downloads data sets of the Hugging Face hub as streams of rows into parquet files, and survives bad connections."""

import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from trfmoe_core.atomic import locked
from trfmoe_core.data.formats.parquet_columns import TEXT_COLUMN
from trfmoe_core.data.hub.shards import PROVENANCE, DiskError, Download, read_progress, write_shard
from trfmoe_core.errors import DataError

SHARD_ROWS = 10_000
SHARD_BYTES = 1 << 26
CHECKPOINT_ROWS = 200
"""If a connection breaks, at most this many rows are downloaded twice."""
FIRST_ATTEMPTS, ATTEMPTS = 3, 8
"""Failures in a row before giving up: until the first row has arrived, and afterwards."""
MAX_WAIT_S = 120.0


@dataclass(frozen=True)
class HubSet:
    """One split of one configuration of a data set. `repo` is a name on the hub or a local copy of a repository."""

    repo: str
    config: str | None
    split: str = "train"
    revision: str | None = None

    @property
    def key(self) -> str:
        """Identifies the data set. A folder holds the files of one data set only."""
        return " ".join(part or "-" for part in (self.repo, self.config, self.split, self.revision))

    def __str__(self) -> str:
        """Returns its name in messages."""
        return f"{self.repo}{f' ({self.config})' if self.config else ''}"


class RowStream(Protocol):
    """An iterator over rows that knows its position."""

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        """Yields rows."""
        ...

    def state(self) -> Any:
        """Returns the position after the last row as JSON values; a new stream can start there."""
        ...


class Hub(Protocol):
    """The hub, or a substitute in a test."""

    def revision(self, wanted: HubSet) -> str:
        """Returns the current commit of the data set."""
        ...

    def open(self, wanted: HubSet, revision: str, state: Any) -> RowStream:
        """Returns the rows that follow the position `state`; all rows for None."""
        ...

    def is_temporary(self, error: Exception) -> bool:
        """Returns True if the same request may succeed later."""
        ...

    def explain(self, error: Exception, wanted: HubSet) -> str:
        """Returns the cause of `error` and the remedy, in words."""
        ...


def fetch(
    wanted: HubSet,
    folder: Path,
    max_documents: int | None,
    hub: Hub,
    *,
    sleep: Callable[[float], None] = time.sleep,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Download:
    """Downloads until `folder` has `max_documents` documents or the data set ends. Returns the progress.

    Documents that are in the folder already are not downloaded again. After a temporary error the download is tried
    again, with a longer pause each time.

    Args:
        wanted: the data set.
        folder: where the files are written.
        max_documents: None downloads all.
        hub: where the rows come from.
        sleep: pauses for some seconds.
        progress: called with (documents so far, `max_documents` or 0).

    Raises:
        DataError: there is no such data set or configuration, no access or no network, or the disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock"):
            done = read_progress(folder)
            if done is not None and done.source != wanted.key:
                raise DataError(f"download folder {folder}: it holds {done.source}, not {wanted.key}; choose another")
            if done is not None and (done.complete or (max_documents is not None and done.rows >= max_documents)):
                return done
            return _fetch(wanted, folder, done, max_documents, hub, sleep, progress)
    except OSError as error:
        raise DataError(
            f"download folder {folder}: {error.strerror or error}; free some space or choose another"
        ) from error


def _fetch(
    wanted: HubSet,
    folder: Path,
    done: Download | None,
    max_documents: int | None,
    hub: Hub,
    sleep: Callable[[float], None],
    progress: Callable[[int, int], None],
) -> Download:
    """Downloads until the wanted number, the end of the data set, or an error that is not temporary."""
    failures, attempts = 0, FIRST_ATTEMPTS
    while True:
        rows_before = done.rows if done else 0
        try:
            if done is None:
                done = Download(wanted.key, hub.revision(wanted))
            for after in _shards(wanted, folder, done, max_documents, hub):
                done = after
                progress(done.rows, max_documents or 0)
            return done
        except (DataError, DiskError):
            raise
        except Exception as error:  # The hub's libraries raise errors of every kind.
            done = read_progress(folder) or done
            # Failures count in a row: rows that arrived in between start the count again.
            arrived = done is not None and done.rows > rows_before
            failures = 1 if arrived else failures + 1
            attempts = ATTEMPTS if arrived else attempts
            if not hub.is_temporary(error) or failures >= attempts:
                tried = f" (tried {failures} times)" if failures > 1 else ""
                raise DataError(f"data set {wanted}: {hub.explain(error, wanted)}{tried}") from error
            # Random, so that nodes that were refused together do not all return at the same moment.
            sleep(min(MAX_WAIT_S, 2.0 ** (failures - 1)) * random.uniform(0.75, 1.25))


def _shards(wanted: HubSet, folder: Path, done: Download, max_documents: int | None, hub: Hub) -> Iterator[Download]:
    """Yields the progress after every file. If the stream breaks, the rows up to the last checkpoint are kept."""
    stream = hub.open(wanted, done.revision, done.state)
    rows: list[dict[str, Any]] = []
    size, skipped = 0, done.skipped
    checkpoint = (0, skipped, done.state)
    missing: int | None = None if max_documents is None else max_documents - done.rows
    try:
        for row in stream:
            text = row.get(TEXT_COLUMN)
            if TEXT_COLUMN not in row:
                columns = ", ".join(sorted(map(str, row))[:24])
                raise DataError(f"data set {wanted}: no column {TEXT_COLUMN!r}; it has {columns or 'none'}")
            if isinstance(text, str) and text:
                rows.append({name: row.get(name) for name in (TEXT_COLUMN, *PROVENANCE)})
                size += len(text)
            else:
                skipped += 1
            full = len(rows) >= SHARD_ROWS or size >= SHARD_BYTES or (missing is not None and len(rows) >= missing)
            if full or (len(rows) + skipped) % CHECKPOINT_ROWS == 0:
                checkpoint = (len(rows), skipped, stream.state())
            if full:
                done = write_shard(folder, done, rows, checkpoint[2], skipped)
                yield done
                missing = None if max_documents is None else max_documents - done.rows
                if missing == 0:
                    return
                rows, size, checkpoint = [], 0, (0, skipped, done.state)
    except (DataError, DiskError):
        raise
    except Exception:
        good, skipped, state = checkpoint
        if good:
            write_shard(folder, done, rows[:good], state, skipped)
        raise
    last = write_shard(folder, done, rows, None, skipped, complete=True)
    if not last.rows:
        raise DataError(f"data set {wanted}: it has no rows with text; choose another split or configuration")
    yield last
