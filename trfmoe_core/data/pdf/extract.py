"""Extracts the text of many PDFs on all cores. Results are cached by content, engine and options."""

import hashlib
import json
import os
import queue
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from trfmoe_core.data.documents.clean import RULES
from trfmoe_core.data.documents.records import SourceFile
from trfmoe_core.data.pdf.engines import EngineChoice, engine_version
from trfmoe_core.data.pdf.reader import PdfLimits, PdfReader, PdfText

# Increase it whenever the same file gives another text.
FORMAT = 2
RETRY_S = 3600.0
"""A file that failed because the machine was busy or the worker was killed is tried again after this time."""


@dataclass(frozen=True)
class Extraction:
    """How to extract.

    Attributes:
        engine: auto, pdfium or pypdf.
        limits: time and memory that one file may take.
        drop_headers: whether to leave out running heads and page numbers.
        passwords: tried on encrypted files.
        workers: files read at the same time; 0: one per core.
    """

    engine: EngineChoice
    limits: PdfLimits
    drop_headers: bool = True
    passwords: tuple[str, ...] = ()
    workers: int = 0

    @property
    def key(self) -> str:
        """A short digest of everything besides the file that determines its text."""
        parts = [FORMAT, RULES, engine_version(self.engine), unicodedata.unidata_version, self.drop_headers]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    @property
    def passwords_key(self) -> str:
        """A digest of the passwords. The passwords themselves are not kept."""
        return hashlib.sha256(json.dumps(self.passwords).encode()).hexdigest()[:16]


def extract_all(
    files: Sequence[SourceFile],
    how: Extraction,
    cache_dir: Path,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
    now: Callable[[], float] = time.time,
) -> Mapping[str, PdfText]:
    """Returns the result of every file by its SHA-256. The text of a file is at `text_path`.

    Files whose result is in the cache are not opened.

    Args:
        files: the PDFs.
        how: engine, limits and options.
        cache_dir: folder of the cache.
        progress: called with (files done, files in total) after every file.
        now: the clock, in seconds.

    Raises:
        DataError: no worker process can be started.
        OSError: the cache cannot be written.
    """
    by_digest = {file.sha256: file for file in files}
    found: dict[str, PdfText] = {}
    for digest in by_digest:
        known = _look_up(digest, how, cache_dir, now())
        if known is not None:
            found[digest] = known
    todo = [file for digest, file in by_digest.items() if digest not in found]
    progress(len(found), len(by_digest))
    # The largest first, so that no core starts a long one at the end.
    todo.sort(key=lambda file: (-(file.stamp.size if file.stamp else 0), file.sha256))
    for digest, result in _read_all(todo, how, cache_dir, now):
        found[digest] = result
        progress(len(found), len(by_digest))
    return found


def text_path(digest: str, how: Extraction, cache_dir: Path) -> Path:
    """Returns the path of the text of the PDF with this SHA-256."""
    return cache_dir / "pdf-text" / digest[:2] / f"{digest}-{how.key}.txt"


def _read_all(
    todo: Sequence[SourceFile], how: Extraction, cache_dir: Path, now: Callable[[], float]
) -> Iterator[tuple[str, PdfText]]:
    if not todo:
        return
    workers = min(len(todo), how.workers or len(os.sched_getaffinity(0)))
    readers = [
        PdfReader(how.limits, how.engine, drop_headers=how.drop_headers, passwords=how.passwords)
        for _ in range(workers)
    ]
    idle: queue.SimpleQueue[PdfReader] = queue.SimpleQueue()
    for reader in readers:
        idle.put(reader)

    def read(file: SourceFile) -> tuple[str, PdfText]:
        reader = idle.get()
        try:
            return file.sha256, _extract(file, reader, how, cache_dir, now)
        finally:
            idle.put(reader)

    try:
        with ThreadPoolExecutor(workers, thread_name_prefix="pdf") as pool:
            futures = [pool.submit(read, file) for file in todo]
            try:
                for future in as_completed(futures):
                    yield future.result()
            finally:
                for future in futures:
                    future.cancel()
                for reader in readers:
                    reader.stop()
    finally:
        for reader in readers:
            reader.close()


def _extract(
    file: SourceFile, reader: PdfReader, how: Extraction, cache_dir: Path, now: Callable[[], float]
) -> PdfText:
    final = text_path(file.sha256, how, cache_dir)
    final.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = final.with_name(f".{final.name}.{uuid4().hex}.tmp")
    try:
        result = reader.read(file, temporary)
        if result.size:
            temporary.replace(final)
    finally:
        temporary.unlink(missing_ok=True)
    if result.status not in ("changed", "unreadable"):
        record = {
            **asdict(result),
            "passwords": how.passwords_key,
            "timeout_s": how.limits.timeout_s,
            "memory_mb": how.limits.memory_mb,
            "time": now(),
        }
        temporary.write_text(json.dumps(record), encoding="utf-8")
        temporary.replace(final.with_suffix(".json"))
    return result


def _look_up(digest: str, how: Extraction, cache_dir: Path, now: float) -> PdfText | None:
    """Returns the cached result of a file, or None if there is none or another attempt may give more text."""
    path = text_path(digest, how, cache_dir)
    try:
        record: dict[str, Any] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        passwords, written = record.pop("passwords"), float(record.pop("time"))
        limits = PdfLimits(record.pop("timeout_s"), record.pop("memory_mb"))
        known = PdfText(**record)
        whole = not known.size or path.stat().st_size == known.size
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not whole:
        return None
    if known.status == "needs-password" and passwords != how.passwords_key:
        return None
    more_time = how.limits.timeout_s > limits.timeout_s
    more_memory = how.limits.memory_mb > limits.memory_mb
    if (known.status == "timeout" and more_time) or (known.status in ("too-large", "broken") and more_memory):
        return None
    if not known.settled and not 0 <= now - written < RETRY_S:
        return None
    return known
