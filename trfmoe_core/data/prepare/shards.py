"""Documents to tokens, some megabytes at a time, by as many processes as there are cores.

A shard is a file named by the digest of all that decides it: the documents' texts and places, the options and the
tokenizer. So it is never stale, and a preparation that was killed finds those that it wrote. N = pieces of a shard.
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
from trfmoe_core.data.prepare.split import as_numbers, cut, digest
from trfmoe_core.data.tokenizers import Tokenizer
from trfmoe_core.errors import DataError

# Raise it whenever the same documents would give other shards.
FORMAT = 1
SHARD_BYTES = 1 << 21
ALONE_BYTES = 1 << 21
"""Text up to this size is tokenized without further processes: starting them takes longer."""
PLACE_BYTES = 40

_encoder: "Encoder | None" = None


@dataclass
class Documents:
    """Some documents of one source, in order.

    Attributes:
        texts: cleaned.
        units: which unit of the source each comes from.
        places: where in its file each stands, in words.
        size: characters so far.
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
    """A written shard, whose tables are read when they are asked for."""

    path: Path

    def load(self, *tables: str) -> list[npt.NDArray[Any]]:
        """Returns some of its tables; see `Encoder.encode` for their names. Each is checked against its checksum."""
        with np.load(self.path, allow_pickle=False) as file:
            return [file[table] for table in tables]

    @property
    def whole(self) -> bool:
        """Whether it is there with every byte as written: a crash of the machine may tear a file."""
        try:
            with zipfile.ZipFile(self.path) as file:
                return file.testzip() is None
        except (OSError, zipfile.BadZipFile, EOFError, ValueError):
            return False


@dataclass(frozen=True)
class Encoder:
    """Cuts documents into pieces and turns them into tokens: what every process does."""

    tokenizer: Tokenizer
    piece_bytes: int

    def key(self, documents: Documents) -> str:
        """Returns the digest of all that decides the shard of these documents."""
        head = [FORMAT, self.piece_bytes, self.tokenizer.fingerprint, documents.units, documents.places]
        state = hashlib.blake2b(json.dumps(head).encode(), digest_size=20)
        for text in documents.texts:
            data = text.encode("utf-8", "replace")
            state.update(len(data).to_bytes(8, "little"))
            state.update(data)
        return state.hexdigest()

    def encode(self, documents: Documents, path: Path) -> None:
        """Writes the shard: a zip of tables without compression, there whole or not at all while the machine lives.

        `tokens`: all pieces, each bos and its ids. `sizes`, `bytes`, `digests`, `documents`: (N,) or (N, 2), of each
        piece. `text`: the pieces' UTF-8 bytes. `units`, `places`: of each document.
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
    """Writes shards in the order of the documents, in this process while they are few, else in several.

    A context manager; leaving it ends the processes.
    """

    def __init__(self, folder: Path, encoder: Encoder, processes: int) -> None:
        """Shards go into `folder`, which must be there."""
        self._folder, self._encoder, self._processes = folder, encoder, processes
        self._pool: ProcessPoolExecutor | None = None
        self._running: deque[Future[None]] = deque()
        self._characters = 0

    def __enter__(self) -> Self:
        """Returns the writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the processes; what was asked for and not begun is given up."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def write(self, documents: Documents) -> Shard:
        """Has the shard of these documents written, unless it is there; `finish` waits for it."""
        shard = Shard(self._folder / f"{self._encoder.key(documents)}.npz")
        if shard.whole:
            return shard
        self._characters += documents.size
        if self._pool is None and self._processes > 1 and self._characters > ALONE_BYTES:
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
        """Waits for all shards.

        Raises:
            DataError: a process died.
            OSError: one could not be written.
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


def batches(documents: Iterator[tuple[str, int, str]]) -> Iterator[Documents]:
    """Yields the documents (text, unit, place) in runs of about `SHARD_BYTES` characters."""
    run = Documents()
    for text, unit, place in documents:
        run.add(text, unit, place)
        if run.size >= SHARD_BYTES:
            yield run
            run = Documents()
    if run.texts:
        yield run


def _start_process(encoder: Encoder) -> None:
    global _encoder
    # One process a core is enough threads; Ctrl-C is the parent's business, and without a parent there is none.
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
