"""Reads PDFs in a child process, which may hang, crash or use much memory without harm to this one."""

import contextlib
import json
import os
import select
import signal
import struct
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

import psutil

from trfmoe_core.data.documents.records import SourceFile
from trfmoe_core.data.documents.reports import Status
from trfmoe_core.data.pdf.engines import PACKAGES, EngineChoice, engines_of
from trfmoe_core.errors import DataError
from trfmoe_core.places import APP_FOLDER

START_TIMEOUT_S = 120.0
FILES_PER_WORKER = 64
WALL_FACTOR = 3.0
"""A worker that gets too little processor time may take this many times the limit by the clock."""
_RETRY_SHARE = 0.5
"""Share of the time limit that the second engine may take for pages that the first one reads badly."""
_MAX_REPLY_BYTES = 1 << 20
_HEADER_BYTES = 1024
_POLL_S = 0.2


@dataclass(frozen=True)
class PdfLimits:
    """Limits for one file: seconds of processor time, and MB more than an idle worker has."""

    timeout_s: float
    memory_mb: int


@dataclass(frozen=True)
class PdfText:
    """The result of reading one PDF.

    Attributes:
        status: files that are `ok` or `partial` have a text, all others have none.
        num_pages: pages of the document; 0 if it could not be opened.
        pages: pages with text.
        characters: characters of the text, after cleaning.
        size: UTF-8 bytes of the text.
        text_sha256: hex digest of the text.
        detail: the reason in words.
        page_errors: errors on single pages, at most the first few.
        settled: False if another attempt may end otherwise, because the machine was busy or the worker was killed.
    """

    status: Status
    num_pages: int = 0
    pages: int = 0
    characters: int = 0
    size: int = 0
    text_sha256: str = ""
    detail: str = ""
    page_errors: list[str] = field(default_factory=list)
    settled: bool = True


class _TimedOutError(Exception):
    """The worker did not answer in time. `starved`: it got less processor time than the limit allows."""

    def __init__(self, starved: bool) -> None:
        self.starved = starved


class _WorkerDiedError(Exception):
    """The worker ended before it answered."""


class PdfReader:
    """Reads PDFs one at a time in a worker process, which is started on first use and restarted after a failure.

    A context manager; leaving it ends the worker.
    """

    def __init__(
        self,
        limits: PdfLimits,
        engine: EngineChoice = "auto",
        *,
        drop_headers: bool = True,
        passwords: tuple[str, ...] = (),
    ) -> None:
        """Prepares to read. No process is started yet.

        Args:
            limits: limits for one file.
            engine: auto, pdfium or pypdf.
            drop_headers: whether to leave out running heads and page numbers.
            passwords: tried on encrypted files, after the empty password.
        """
        self._limits = limits
        self._engine = engine
        self._drop_headers = drop_headers
        self._passwords = passwords
        self._worker: subprocess.Popen[bytes] | None = None
        self._files = 0
        self._stopped = False
        self._death = 0

    def __enter__(self) -> Self:
        """Returns the reader itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the worker."""
        self.close()

    def read(self, file: SourceFile, out: Path) -> PdfText:
        """Writes the text of a PDF to `out`, if it has any, and returns the result.

        Raises:
            DataError: no worker process can be started, or `stop` was called.
        """
        try:
            descriptor = os.open(file.path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
            with os.fdopen(descriptor, "rb") as opened:
                if b"%PDF-" not in (opened.read(_HEADER_BYTES) or b""):
                    return PdfText("not-a-pdf", detail=f"no %PDF- in its first {_HEADER_BYTES} bytes")
        except OSError as error:
            return PdfText("unreadable", detail=error.strerror or str(error), settled=False)
        for engine in (self._engine, *engines_of(self._engine)[1:]):
            # The system may kill a worker when memory is short, so one kill is not blamed on the file.
            for _ in range(2):
                result = self._attempt(file, out, engine)
                if result is not None:
                    return result
                if self._death != -signal.SIGKILL:
                    break
        died = "every engine died on it: malformed, or beyond data.file_memory_mb"
        return PdfText("broken", detail=died, settled=False)

    def _attempt(self, file: SourceFile, out: Path, engine: EngineChoice) -> PdfText | None:
        """Returns the worker's result, or None if the worker died."""
        if self._stopped:
            raise DataError("reading PDFs was stopped")
        worker = self._running_worker()
        request = {
            "path": os.fspath(file.path.absolute()),
            "sha256": file.sha256,
            "out": os.fspath(out),
            "engine": engine,
            "retry_s": self._limits.timeout_s * _RETRY_SHARE,
            "drop_headers": self._drop_headers,
            "passwords": list(self._passwords),
        }
        try:
            deadline = _Deadline(worker.pid, self._limits.timeout_s, WALL_FACTOR * self._limits.timeout_s)
            _send(worker, request)
            reply = _receive(worker, deadline)
        except _TimedOutError as error:
            self.close(kill=True)
            limit = f"{self._limits.timeout_s:g} s"
            if error.starved:
                waited = f"{WALL_FACTOR * self._limits.timeout_s:g} s"
                return PdfText(
                    "timeout", detail=f"not done after {waited}, with less than {limit} of a processor", settled=False
                )
            return PdfText("timeout", detail=f"not done after {limit} of a processor; see data.file_timeout_s")
        except (_WorkerDiedError, psutil.NoSuchProcess):
            self._death = self.close(kill=True)
            return None
        self._files += 1
        if reply["status"] == "too-large" or self._files >= FILES_PER_WORKER:
            self.close()
        return PdfText(**reply, settled=reply["status"] not in ("changed", "unreadable"))

    def stop(self) -> None:
        """Stops the reader, from any thread: the current read and all later ones raise."""
        self._stopped = True
        worker = self._worker
        if worker is not None:
            worker.kill()

    def close(self, *, kill: bool = False) -> int:
        """Ends the worker if there is one. Returns its exit code."""
        worker, self._worker, self._files = self._worker, None, 0
        if worker is None:
            return 0
        if kill:
            worker.kill()
        for pipe in (worker.stdin, worker.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        try:
            return worker.wait(timeout=2)
        except subprocess.TimeoutExpired:
            worker.kill()
            return worker.wait()

    def _running_worker(self) -> subprocess.Popen[bytes]:
        if self._worker is not None:
            return self._worker
        root = os.fspath(APP_FOLDER)
        path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        module = "trfmoe_core.data.pdf.worker"
        try:
            self._worker = subprocess.Popen(
                # -P: modules are not imported from the working directory.
                [sys.executable, "-P", "-W", "ignore", "-m", module, str(self._limits.memory_mb), self._engine],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": path},
            )
            _receive(self._worker, _Deadline(self._worker.pid, START_TIMEOUT_S, START_TIMEOUT_S))
        except (OSError, _TimedOutError, _WorkerDiedError, psutil.NoSuchProcess) as error:
            code = self.close()
            package = PACKAGES[engines_of(self._engine)[0]]
            raise DataError(
                f"PDF reader: {sys.executable} could not start {module} (exit code {code}) {error}; "
                f"check that {package} is installed for this Python"
            ) from error
        return self._worker


class _Deadline:
    """When to give up a worker. It counts processor time, so that files do not fail on a busy machine."""

    def __init__(self, pid: int, limit_s: float, wall_s: float) -> None:
        self._process = psutil.Process(pid)
        self._limit_s = limit_s
        self._used_s = self._cpu_s()
        self._deadline = time.monotonic() + wall_s

    def _cpu_s(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def wait_s(self) -> float:
        """Returns the seconds to wait until the next check.

        Raises:
            _TimedOutError: the time is up.
        """
        left = self._limit_s - (self._cpu_s() - self._used_s)
        if left <= 0:
            raise _TimedOutError(starved=False)
        wall = self._deadline - time.monotonic()
        if wall <= 0:
            raise _TimedOutError(starved=True)
        return min(max(left, 0.01), wall, _POLL_S)


def _send(worker: subprocess.Popen[bytes], message: dict[str, Any]) -> None:
    data = json.dumps(message).encode("ascii")
    try:
        cast(IO[bytes], worker.stdin).write(struct.pack(">I", len(data)) + data)
    except (OSError, ValueError) as error:
        raise _WorkerDiedError from error


def _receive(worker: subprocess.Popen[bytes], deadline: _Deadline) -> dict[str, Any]:
    pipe = cast(IO[bytes], worker.stdout).fileno()
    size = struct.unpack(">I", _read_exactly(pipe, 4, deadline))[0]
    if size > _MAX_REPLY_BYTES:
        raise _WorkerDiedError(f"a reply of {size} bytes")
    return cast(dict[str, Any], json.loads(_read_exactly(pipe, size, deadline)))


def _read_exactly(pipe: int, size: int, deadline: _Deadline) -> bytes:
    data = bytearray()
    poller = select.poll()
    poller.register(pipe, select.POLLIN)
    while len(data) < size:
        if not poller.poll(deadline.wait_s() * 1000):
            continue
        block = os.read(pipe, min(size - len(data), 1 << 20))
        if not block:
            raise _WorkerDiedError
        data += block
    return bytes(data)
