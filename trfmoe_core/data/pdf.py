"""PDFs read in a child process that may hang, crash or eat memory without harm to anyone else."""

import contextlib
import json
import os
import select
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

from trfmoe_core.data.files import Status
from trfmoe_core.errors import DataError

START_TIMEOUT_S = 120.0
FILES_A_WORKER = 64
_MAX_REPLY_BYTES = 1 << 30
_HEADER_BYTES = 1024


@dataclass(frozen=True)
class PdfText:
    """What one PDF gave: `text` has a form feed between pages and is empty unless the status is ok or partial."""

    status: Status
    pages: int = 0
    text: str = ""
    detail: str = ""


class _TimedOutError(Exception):
    """The worker did not answer in time."""


class _GoneError(Exception):
    """The worker ended in the middle of its work."""


class PdfReader:
    """Reads PDFs one at a time in a worker process, which is started on first use and replaced when it fails.

    A context manager; leaving it ends the worker.
    """

    def __init__(self, timeout_s: float, memory_mb: int) -> None:
        """Allows each file `timeout_s` seconds and `memory_mb` MB (beyond what an idle worker has)."""
        self._timeout_s = timeout_s
        self._memory_mb = memory_mb
        self._worker: subprocess.Popen[bytes] | None = None
        self._files = 0

    def __enter__(self) -> Self:
        """Returns the reader itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the worker."""
        self.close()

    def read(self, path: Path) -> PdfText:
        """Returns the text of the PDF at `path`, or why there is none.

        Raises:
            OSError: the file cannot be read at all.
            DataError: no worker process can be started.
        """
        with path.open("rb") as file:
            if b"%PDF-" not in file.read(_HEADER_BYTES):
                return PdfText("not-a-pdf", detail=f"no %PDF- in its first {_HEADER_BYTES} bytes")
        # A worker may be killed from outside, by a system short of memory for one: only a second death is the file's.
        died = PdfText("broken", detail="its reader died twice on it: malformed, or beyond data.file_memory_mb")
        return self._attempt(path) or self._attempt(path) or died

    def _attempt(self, path: Path) -> PdfText | None:
        """Returns what the worker says about the file, or None when it died over it."""
        worker = self._running_worker()
        deadline = time.monotonic() + self._timeout_s
        try:
            _send(worker, {"path": os.fspath(path.absolute())})
            reply = _receive(worker, deadline)
        except _TimedOutError:
            self.close(kill=True)
            return PdfText("timeout", detail=f"not done after {self._timeout_s:g} s; see data.file_timeout_s")
        except _GoneError:
            self.close(kill=True)
            return None
        self._files += 1
        if reply["status"] == "too-large" or self._files >= FILES_A_WORKER:
            self.close()
        return PdfText(reply["status"], reply["pages"], reply["text"], reply["detail"])

    def close(self, *, kill: bool = False) -> int:
        """Ends the worker if there is one; returns its exit code."""
        worker, self._worker, self._files = self._worker, None, 0
        if worker is None:
            return 0
        for pipe in (worker.stdin, worker.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        try:
            return worker.wait(timeout=0 if kill else 2)
        except subprocess.TimeoutExpired:
            worker.kill()
            return worker.wait()

    def _running_worker(self) -> subprocess.Popen[bytes]:
        if self._worker is not None:
            return self._worker
        script = Path(__file__).with_name("pdf_worker.py")
        try:
            self._worker = subprocess.Popen(
                # -P: neither the script's folder nor the working directory may shadow a module.
                [sys.executable, "-P", "-W", "ignore", os.fspath(script), str(self._memory_mb)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                start_new_session=True,
            )
            _receive(self._worker, time.monotonic() + START_TIMEOUT_S)
        except (OSError, _TimedOutError, _GoneError) as error:
            code = self.close()
            raise DataError(
                f"PDF reader: {sys.executable} could not start {script} (exit code {code}) {error}; "
                "check that pypdf is installed for this Python"
            ) from error
        return self._worker


def _send(worker: subprocess.Popen[bytes], message: dict[str, Any]) -> None:
    data = json.dumps(message).encode("ascii")
    try:
        cast(IO[bytes], worker.stdin).write(struct.pack(">I", len(data)) + data)
    except OSError as error:
        raise _GoneError from error


def _receive(worker: subprocess.Popen[bytes], deadline: float) -> dict[str, Any]:
    pipe = cast(IO[bytes], worker.stdout).fileno()
    size = struct.unpack(">I", _read_exactly(pipe, 4, deadline))[0]
    if size > _MAX_REPLY_BYTES:
        raise _GoneError(f"a reply of {size} bytes")
    return cast(dict[str, Any], json.loads(_read_exactly(pipe, size, deadline)))


def _read_exactly(pipe: int, size: int, deadline: float) -> bytes:
    data = bytearray()
    poller = select.poll()
    poller.register(pipe, select.POLLIN)
    while len(data) < size:
        left = deadline - time.monotonic()
        if left <= 0 or not poller.poll(left * 1000):
            raise _TimedOutError
        block = os.read(pipe, min(size - len(data), 1 << 20))
        if not block:
            raise _GoneError
        data += block
    return bytes(data)
