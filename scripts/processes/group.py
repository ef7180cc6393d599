"""A family of processes that ends with the command that started it, however that ends."""

import contextlib
import fcntl
import json
import os
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from scripts.processes.guard import MARK, kill_marked
from trfmoe_core.errors import RunError

# Ray's sockets lie 72 characters below the scratch folder, and a Unix socket's path ends at 107.
MAX_SCRATCH_LENGTH = 34
STOP_DEADLINE_S = 12.0


class ProcessGroup:
    """Context manager: processes started through it are gone, and its scratch folder with them, when it is left.

    The processes are children of a guard process (`scripts/processes/guard.py`), which notices when this one dies, by
    SIGKILL too.
    """

    def __init__(self) -> None:
        _sweep()
        self.scratch = _scratch()
        self.exits: dict[str, int] = {}
        self._pids: dict[str, int] = {}
        self._errors: dict[str, str] = {}
        self._buffer = b""
        self._open = True
        self._lock = os.open(self.scratch / "lock", os.O_CREAT | os.O_RDWR)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        # -P: the folder of the guard's file must not come first on its import path.
        self._guard = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("guard.py")), str(self.scratch)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
            start_new_session=True,
            pass_fds=[self._lock],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        """True if the guard is there; without it the processes are being stopped by the system."""
        self._receive(0.0)
        return self._open

    def start(self, name: str, argv: list[str], env: dict[str, str], cwd: Path, log: Path) -> int:
        """Returns the pid of a new process whose output is appended to `log`.

        Raises:
            RunError: the program cannot be started, or the guard is gone.
        """
        request = {"start": name, "argv": argv, "env": {**env, MARK: str(self.scratch)}, "cwd": str(cwd)}
        self.exits.pop(name, None)
        self._pids.pop(name, None)
        try:
            if self._guard.stdin is not None:
                self._guard.stdin.write(json.dumps({**request, "log": str(log)}).encode() + b"\n")
                self._guard.stdin.flush()
        except OSError as error:
            raise RunError(f"{name}: not started, the guard of the processes is gone ({error}); run again") from error
        while name not in self._pids and name not in self._errors and self._open:
            self._receive(1.0)
        if name not in self._pids:
            reason = self._errors.pop(name, "the guard of the processes is gone")
            raise RunError(f"{name}: cannot be started ({reason}); command: {' '.join(argv)}")
        return self._pids[name]

    def running(self, name: str) -> bool:
        """Returns True if a started process has not ended yet, as far as is known."""
        self._receive(0.0)
        return self._open and name in self._pids and name not in self.exits

    def wait(self, name: str, timeout_s: float) -> int | None:
        """Returns the exit code of a process (negative: its signal); None when the time is over or the guard gone."""
        deadline = time.monotonic() + timeout_s
        while name not in self.exits and self._open and (left := deadline - time.monotonic()) > 0:
            self._receive(min(left, 1.0))
        return self.exits.get(name)

    def descendants(self) -> list[psutil.Process]:
        """Returns every process of the family that is running, at whatever depth."""
        try:
            return list(psutil.Process(self._guard.pid).children(recursive=True))
        except psutil.Error:
            return []

    def close(self) -> None:
        """Stops everything and removes the scratch folder; returns when both are gone."""
        for pipe in (self._guard.stdin, self._guard.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._open = False
        try:
            self._guard.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._guard.kill()
            self._guard.wait()
        os.close(self._lock)
        kill_marked(self.scratch)
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _receive(self, timeout_s: float) -> None:
        if not self._open or self._guard.stdout is None:
            return
        with selectors.DefaultSelector() as selector:
            selector.register(self._guard.stdout, selectors.EVENT_READ)
            if not selector.select(timeout_s):
                return
        data = os.read(self._guard.stdout.fileno(), 1 << 16)
        if not data:
            self._open = False
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "started" in message:
                self._pids[message["started"]] = message["pid"]
            elif "exited" in message:
                self.exits[message["exited"]] = message["code"]
            else:
                self._errors[message["failed"]] = message["error"]


def _scratch() -> Path:
    folder = tempfile.gettempdir()
    if len(folder) + len("/trfmoe-12345678") > MAX_SCRATCH_LENGTH or " " in folder:
        folder = "/tmp"
    return Path(tempfile.mkdtemp(prefix="trfmoe-", dir=folder)).resolve()


def _sweep() -> None:
    """Removes what a command left behind that was killed together with its guard."""
    for folder in {tempfile.gettempdir(), "/tmp"}:
        for lock in Path(folder).glob("trfmoe-*/lock"):
            try:
                if lock.stat().st_uid != os.getuid() or lock.stat().st_mtime > time.time() - 5:
                    continue
                with lock.open() as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            kill_marked(lock.parent)
            shutil.rmtree(lock.parent, ignore_errors=True)
