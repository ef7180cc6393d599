"""Guards a family of processes: whatever it starts has ended before it ends itself.

`scripts.processes.group` runs this file as a program (`python guard.py SCRATCH`). It reads requests, one JSON
object a line, from standard input and answers on standard output; the end of its input means that the command has gone,
in whatever way. On Linux it is a child subreaper (prctl(2)), so daemons that detach themselves,
such as Ray's, stay its descendants. It lives in a session of its own so that Ctrl-C reaches only the command. Should
the guard be killed as well, its warden, which does nothing but wait for that, ends all that carry the family's mark.
It needs nothing but the standard library and psutil.
"""

import contextlib
import ctypes
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

import psutil

MARK = "TRFMOE_FAMILY"
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
TERMINATE_GRACE_S = 1.0
KILL_DEADLINE_S = 6.0


class Guard:
    """Starts processes on request and stops all their descendants at the end."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._names: dict[int, str] = {}
        self._running = True
        self._buffer = b""
        self._warden = _fork_warden(scratch)
        self._prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
        if self._prctl is not None:
            self._prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def run(self) -> int:
        """Serves until the input ends, a stop is requested or a signal arrives. Returns 0 if no process is left."""
        wake_read, wake_write = socket.socketpair()
        wake_read.setblocking(False)
        wake_write.setblocking(False)
        signal.set_wakeup_fd(wake_write.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._leave)
        with selectors.DefaultSelector() as selector:
            selector.register(sys.stdin.fileno(), selectors.EVENT_READ, self._read_requests)
            selector.register(wake_read, selectors.EVENT_READ, lambda: wake_read.recv(4096))
            while self._running:
                for key, _ in selector.select():
                    key.data()
                self._reap()
        left = self._stop_all()
        shutil.rmtree(self._scratch, ignore_errors=True)
        return 1 if left else 0

    def _leave(self, *_: object) -> None:
        self._running = False

    def _read_requests(self) -> None:
        data = os.read(sys.stdin.fileno(), 1 << 16)
        if not data:
            self._running = False
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            request = json.loads(line)
            if request.get("stop"):
                self._running = False
                return
            self._start(request)

    def _start(self, request: dict[str, Any]) -> None:
        guard = os.getpid()

        def die_with_the_guard() -> None:
            if self._prctl is not None:
                self._prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
                if os.getppid() != guard:
                    os._exit(1)

        try:
            with _private_log(Path(request["log"])) as log:
                process = subprocess.Popen(
                    request["argv"],
                    env=request["env"],
                    cwd=request["cwd"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    preexec_fn=die_with_the_guard,
                )
        except (OSError, subprocess.SubprocessError) as error:
            self._answer({"failed": request["start"], "error": str(error)})
            return
        self._names[process.pid] = request["start"]
        process.returncode = 0  # reaped by `_reap`, like the orphans; Popen must not wait for it
        self._answer({"started": request["start"], "pid": process.pid})

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if name := self._names.pop(pid, None):
                    self._answer({"exited": name, "code": os.waitstatus_to_exitcode(status)})

    def _answer(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the command may be gone
            os.write(sys.stdout.fileno(), json.dumps(message).encode() + b"\n")

    def _stop_all(self) -> list[psutil.Process]:
        start = time.monotonic()
        for process in self._descendants():
            with contextlib.suppress(psutil.Error):
                process.terminate()
        while (left := self._descendants()) and time.monotonic() < start + TERMINATE_GRACE_S:
            time.sleep(0.05)
        while left and time.monotonic() < start + TERMINATE_GRACE_S + KILL_DEADLINE_S:
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            time.sleep(0.05)
            left = self._descendants()
        return left

    def _descendants(self) -> list[psutil.Process]:
        self._reap()
        found = []
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.pid != self._warden and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found


def _private_log(path: Path) -> BinaryIO:
    """Opens a log at its end, for its owner alone: a node's names its files."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with contextlib.suppress(PermissionError):  # it is another account's
        os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "ab")


def kill_marked(scratch: Path) -> None:
    """Kills every process that carries the mark of the family of `scratch`, and what descends from it."""
    deadline = time.monotonic() + KILL_DEADLINE_S
    while (left := processes_of(scratch)) and time.monotonic() < deadline:
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        time.sleep(0.1)


def processes_of(scratch: Path) -> list[psutil.Process]:
    """Returns every process that carries the mark of the family of `scratch`, and what descends from it."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == str(scratch) and process.status() != psutil.STATUS_ZOMBIE:
                # Some of Ray's programs overwrite their environment with their title; their parents do not.
                found += [process, *process.children(recursive=True)]
    return found


def _fork_warden(scratch: Path) -> int:
    read, write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(read)  # the other end closes when this process ends
        return pid
    os.setsid()
    os.close(write)
    for number in (0, 1):
        os.close(number)
    os.read(read, 1)
    kill_marked(scratch)
    shutil.rmtree(scratch, ignore_errors=True)
    os._exit(0)


if __name__ == "__main__":
    sys.exit(Guard(Path(sys.argv[1])).run())
