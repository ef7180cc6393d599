"""Tokenizes documents into shard files of a few megabytes, with one process per core.

The name of a shard is a digest of everything that determines it: texts, places, options and tokenizer. So a shard is
never stale, and a preparation that was killed reuses the shards that it wrote. Shapes: N = pieces of a shard.
"""

import hashlib
import json
import multiprocessing
import os
import signal
import threading
import zipfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from trfmoe_core.data.batches.store import token_dtype
from trfmoe_core.data.documents.pieces import cut
from trfmoe_core.data.prepare.split import as_numbers, digest
from trfmoe_core.data.tokenizers import Tokenizer
from trfmoe_core.errors import DataError

# Increase it whenever the same documents give other shards.
FORMAT = 1
SHARD_CHARACTERS = 1 << 21
IN_PROCESS_CHARACTERS = 1 << 21
"""Text up to this size is tokenized in this process: starting others would take longer."""
PLACE_BYTES = 40

_encoder: "Encoder | None" = None


@dataclass
class Documents:
    """Some documents of one source, in order.

    Attributes:
        texts: cleaned text of each.
        units: index of the unit of the source that each comes from.
        places: where each stands in its file, in words.
        size: characters of all texts.
    """

    texts: list[str] = field(default_factory=list)
    units: list[int] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    size: int = 0

    def add(self, text: str, unit: int, place: str) -> None:
        """Adds a document."""
        self.texts.append(text)
        self.units.append(unit)
        self.places.append(place)
        self.size += len(text)


@dataclass(frozen=True)
class Shard:
    """A shard file; its tables are read on request."""

    path: Path

    def load(self, *tables: str) -> list[npt.NDArray[Any]]:
        """Returns some of its tables (`Encoder.encode` lists them). Reading verifies the checksums."""
        with np.load(self.path, allow_pickle=False) as file:
            return [file[table] for table in tables]

    @property
    def whole(self) -> bool:
        """True if the file exists and all its checksums are right: a crash of the machine may tear a file."""
        try:
            with zipfile.ZipFile(self.path) as file:
                return file.testzip() is None
        except (OSError, zipfile.BadZipFile, EOFError, ValueError):
            return False


@dataclass(frozen=True)
class Encoder:
    """Cuts documents into pieces and tokenizes them; every process has one."""

    tokenizer: Tokenizer
    piece_bytes: int

    def key(self, documents: Documents) -> str:
        """Returns the digest of everything that determines the shard of these documents."""
        head = [FORMAT, self.piece_bytes, self.tokenizer.fingerprint, documents.units, documents.places]
        state = hashlib.blake2b(json.dumps(head).encode(), digest_size=20)
        for text in documents.texts:
            data = text.encode("utf-8", "replace")
            state.update(len(data).to_bytes(8, "little"))
            state.update(data)
        return state.hexdigest()

    def encode(self, documents: Documents, path: Path) -> None:
        """Writes the shard as an uncompressed zip of tables. The file appears at once, when it is complete.

        Tables: `tokens`, all pieces in a row, each a bos and its ids; `sizes` (N,) tokens, `bytes` (N,) UTF-8 bytes,
        `digests` (N, 2) and `documents` (N,) index of the document, of every piece; `text`, the pieces' UTF-8 bytes in
        a row; `units` and `places` of every document.

        Raises:
            OSError: the file cannot be written.
        """
        pieces: list[str] = []
        owners: list[int] = []
        for number, text in enumerate(documents.texts):
            found = cut(text, self.piece_bytes)
            pieces += found
            owners += [number] * len(found)
        data = [piece.encode("utf-8") for piece in pieces]
        ids = self.tokenizer.encode_batch(pieces)
        dtype = token_dtype(self.tokenizer.vocab_size)
        bos = np.array([self.tokenizer.bos_id], dtype=dtype)
        empty = np.zeros(0, dtype=dtype)
        tables = {
            "tokens": np.concatenate([empty, *(part.astype(dtype) for one in ids for part in (bos, one))]),
            "sizes": np.array([one.size + 1 for one in ids], dtype=np.int64),
            "bytes": np.array([len(one) for one in data], dtype=np.int64),
            "digests": as_numbers(b"".join(digest(piece) for piece in pieces)),
            "documents": np.array(owners, dtype=np.int64),
            "text": np.frombuffer(b"".join(data), dtype=np.uint8),
            "units": np.array(documents.units, dtype=np.int64),
            "places": np.array([place.encode("ascii", "replace") for place in documents.places], f"S{PLACE_BYTES}"),
        }
        temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
        try:
            with temporary.open("wb") as file:
                np.savez(file, allow_pickle=False, **tables)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


class ShardWriter:
    """Writes shards: the first ones in this process, and many of them in several processes.

    A context manager; leaving it ends the processes.
    """

    def __init__(self, folder: Path, encoder: Encoder, processes: int) -> None:
        """Prepares to write shards into `folder`, which must exist, with at most `processes` processes."""
        self._folder, self._encoder, self._processes = folder, encoder, processes
        self._pool: ProcessPoolExecutor | None = None
        self._running: deque[Future[None]] = deque()
        self._characters = 0

    @property
    def vocab_size(self) -> int:
        """Ids in the shards are below it."""
        return self._encoder.tokenizer.vocab_size

    def __enter__(self) -> Self:
        """Returns the writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the processes and drops shards that were not begun."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def write(self, documents: Documents) -> Shard:
        """Returns the shard of these documents, which is written unless it exists. `finish` waits for it."""
        shard = Shard(self._folder / f"{self._encoder.key(documents)}.npz")
        if shard.whole:
            return shard
        self._characters += documents.size
        if self._pool is None and self._processes > 1 and self._characters > IN_PROCESS_CHARACTERS:
            self._pool = ProcessPoolExecutor(
                self._processes, multiprocessing.get_context("spawn"), _start_process, (self._encoder,)
            )
        if self._pool is None:
            self._encoder.encode(documents, shard.path)
            return shard
        self._wait(2 * self._processes)
        self._running.append(self._pool.submit(_encode, documents, shard.path))
        return shard

    def finish(self) -> None:
        """Waits until all shards are written.

        Raises:
            DataError: a process died.
            OSError: a shard could not be written.
        """
        self._wait(0)

    def _wait(self, most: int) -> None:
        while len(self._running) > most:
            try:
                self._running.popleft().result()
            except BrokenProcessPool as error:
                raise DataError(
                    "a process that turns text into tokens was killed, perhaps for lack of memory; start again with "
                    "fewer (data.processes): what is done already is kept"
                ) from error


def grouped(documents: Iterator[tuple[str, int, str]]) -> Iterator[Documents]:
    """Groups documents (text, unit, place) in runs of about `SHARD_CHARACTERS` characters."""
    run = Documents()
    for text, unit, place in documents:
        run.add(text, unit, place)
        if run.size >= SHARD_CHARACTERS:
            yield run
            run = Documents()
    if run.texts:
        yield run


def _start_process(encoder: Encoder) -> None:
    global _encoder
    # There is one process per core, so one thread is enough. Ctrl-C ends the parent, and with it this process.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _encoder = encoder


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _encode(documents: Documents, path: Path) -> None:
    assert _encoder is not None
    _encoder.encode(documents, path)
