"""Data sets of the Hugging Face hub, streamed once into parquet shards on this machine.

The shards and `progress.json` beside them are always whole: a download that was killed goes on after its last shard.
"""

import hashlib
import json
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from trfmoe_core.atomic import locked, write_bytes, write_text
from trfmoe_core.data.formats.parquet import PROVENANCE, TEXT_COLUMN
from trfmoe_core.errors import DataError

SHARD_ROWS = 10_000
SHARD_BYTES = 1 << 26
MARK_ROWS = 200
"""A broken connection costs at most so many rows, which are asked for again."""
FIRST_ATTEMPTS, ATTEMPTS = 3, 8
"""How often silence is borne: before anything came through, and later on."""
PROGRESS = "progress.json"
MAX_WAIT_S = 120.0
_NUMBERS = {"language_score": float, "score": float, "token_count": int, "int_score": int}


@dataclass(frozen=True)
class HubSet:
    """One configuration of a data set: of a repository of the hub, or of a local copy of one."""

    repo: str
    config: str | None
    split: str = "train"
    revision: str | None = None

    @property
    def key(self) -> str:
        """What a folder of shards may hold only one of."""
        return " ".join(part or "-" for part in (self.repo, self.config, self.split, self.revision))

    def __str__(self) -> str:
        """How messages name it."""
        return f"{self.repo}{f' ({self.config})' if self.config else ''}"


@dataclass(frozen=True)
class Shard:
    """One file of the download."""

    name: str
    rows: int
    size: int
    sha256: str


@dataclass(frozen=True)
class Download:
    """What has been downloaded so far.

    Attributes:
        source: the data set's `HubSet.key`.
        revision: the commit it comes from; empty for a local copy.
        shards: in the order of the data set.
        state: where the stream goes on.
        complete: whether the stream came to its end.
        skipped: rows without text.
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


class RowStream(Protocol):
    """Rows of a data set, and where it stands."""

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        """Yields rows."""
        ...

    def state(self) -> Any:
        """Returns where a new stream goes on after the last row, as JSON values."""
        ...


class Hub(Protocol):
    """The hub, or what stands in for it in a test."""

    def revision(self, wanted: HubSet) -> str:
        """Returns the commit that is the data set's present one."""
        ...

    def open(self, wanted: HubSet, revision: str, state: Any) -> RowStream:
        """Returns the rows after `state`, None for all."""
        ...

    def is_passing(self, error: Exception) -> bool:
        """Returns whether the same request may work later."""
        ...

    def explain(self, error: Exception, wanted: HubSet) -> str:
        """Returns what is wrong and what to do, in words."""
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
    """Downloads until there are `max_documents` documents or the data set ends, and returns what is in `folder`.

    What is there already is not asked for again. Passing errors are waited out, longer each time.

    Raises:
        DataError: no such data set or configuration, no access, no network; or the disk is full.
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


def read_progress(folder: Path) -> Download | None:
    """Returns what was downloaded into `folder` before, or None when nothing whole is there."""
    try:
        raw = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
        shards = [Shard(**shard) for shard in raw.pop("shards")]
        whole = all((folder / shard.name).stat().st_size == shard.size for shard in shards)
        return Download(shards=shards, **raw) if whole else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


class _DiskError(OSError):
    """The disk's fault and not the hub's."""


def _fetch(
    wanted: HubSet,
    folder: Path,
    done: Download | None,
    max_documents: int | None,
    hub: Hub,
    sleep: Callable[[float], None],
    progress: Callable[[int, int], None],
) -> Download:
    """Goes on until the wanted number, the end, or an error that does not pass."""
    failures, patience = 0, FIRST_ATTEMPTS
    while True:
        rows_before = done.rows if done else 0
        try:
            if done is None:
                done = Download(wanted.key, hub.revision(wanted))
            for after in _shards(wanted, folder, done, max_documents, hub):
                done = after
                progress(done.rows, max_documents or 0)
            return done
        except (DataError, _DiskError):
            raise
        except Exception as error:  # The hub's libraries raise errors of every kind.
            done = read_progress(folder) or done
            # What came through in between counts: only silence wears patience out.
            came_through = done is not None and done.rows > rows_before
            failures = 1 if came_through else failures + 1
            patience = ATTEMPTS if came_through else patience
            if not hub.is_passing(error) or failures >= patience:
                tried = f" (tried {failures} times)" if failures > 1 else ""
                raise DataError(f"data set {wanted}: {hub.explain(error, wanted)}{tried}") from error
            # Many nodes may have been refused at the same moment: they do not all come back at the same moment.
            sleep(min(MAX_WAIT_S, 2.0 ** (failures - 1)) * random.uniform(0.75, 1.25))


def _shards(wanted: HubSet, folder: Path, done: Download, max_documents: int | None, hub: Hub) -> Iterator[Download]:
    """Yields the progress after every shard that was written; keeps good rows when the stream breaks."""
    stream = hub.open(wanted, done.revision, done.state)
    rows: list[dict[str, Any]] = []
    size, skipped = 0, done.skipped
    mark = (0, skipped, done.state)
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
            if full or (len(rows) + skipped) % MARK_ROWS == 0:
                mark = (len(rows), skipped, stream.state())
            if full:
                done = _write_shard(folder, done, rows, mark[2], skipped)
                yield done
                missing = None if max_documents is None else max_documents - done.rows
                if missing == 0:
                    return
                rows, size, mark = [], 0, (0, skipped, done.state)
    except (DataError, _DiskError):
        raise
    except Exception:
        good, skipped, state = mark
        if good:
            _write_shard(folder, done, rows[:good], state, skipped)
        raise
    last = _write_shard(folder, done, rows, None, skipped, complete=True)
    if not last.rows:
        raise DataError(f"data set {wanted}: it has no rows with text; choose another split or configuration")
    yield last


def _write_shard(
    folder: Path, done: Download, rows: list[dict[str, Any]], state: Any, skipped: int, *, complete: bool = False
) -> Download:
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
        raise _DiskError(*error.args) from error
    return after


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    import io

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
    """Returns the value as `kind`, or None where it is none."""
    if value is None:
        return None
    if kind is str:
        return str(value).encode("utf-8", "replace").decode()
    try:
        return kind(value)
    except (TypeError, ValueError, OverflowError):
        return None


def token(places: list[Path]) -> str | None:
    """Returns the user's token from `HF_TOKEN` or `HUGGING_FACE_HUB_TOKEN`: of the environment, or of a `.env` file."""
    names = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
    for name in names:
        if os.environ.get(name, "").strip():
            return os.environ[name].strip()
    for place in places:
        try:
            lines = (place / ".env").read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError):
            continue
        for name in names:
            for line in lines:
                key, sign, value = line.strip().removeprefix("export ").partition("=")
                if sign and key.strip() == name and value.strip():
                    return value.strip().strip("'\"")
    return None
