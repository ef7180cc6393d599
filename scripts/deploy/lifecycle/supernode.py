"""Runs a node's SuperNode: takes a new key into use, says why the SuperNode ended, and leaves no process behind.

A node's `start.sh` runs this file as a program: `python -P -m scripts.deploy.lifecycle.supernode FOLDER COMMAND...`.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import IO

import psutil

from scripts.deploy.lifecycle.endings import AGAIN_S, HANDSHAKE, Ending, ending, is_untrusted
from scripts.deploy.lifecycle.node_key import take_new_key
from scripts.processes.guard import PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG
from trfmoe_core.errors import ConfigError

GRACE_S = 5.0
TAIL_LINES = 60


class SuperNode:
    """One SuperNode and everything that it starts.

    Args:
        folder: The node's folder.
        command: Flower's program and its arguments.
    """

    def __init__(self, folder: Path, command: list[str]) -> None:
        self._folder = folder
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
        self._stopped = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._stop)

    def keep(self) -> int:
        """Runs the SuperNode, again if its end is one that passes, and returns the exit code of the last one."""
        if self._prctl is not None:  # What the SuperNode leaves behind becomes a child of this process.
            self._prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        while True:
            if take_new_key(self._folder):
                say("the coordinator knows this node's new key, which is in use from now on")
            code, tail = self._run()
            if self._stopped.is_set():
                return 0
            why = self._why(code, tail)
            again = "" if why.again_s is None else f"; it starts again in {why.again_s:g} s"
            if self._untrusted():
                again = "; it starts again by itself then"
            say(f"the SuperNode ended: {why.reason}{again}")
            if why.again_s is None:
                return code or 1
            if self._stopped.wait(why.again_s):
                return 0
            while self._untrusted():  # Flower would fill the log with tries that cannot succeed.
                if self._stopped.wait(why.again_s or AGAIN_S):
                    return 0

    def _run(self) -> tuple[int, list[str]]:
        guard = os.getpid()

        def end_with_this_process() -> None:
            if self._prctl is not None:
                self._prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
                if os.getppid() != guard:
                    os._exit(1)

        tail: deque[str] = deque(maxlen=TAIL_LINES)
        with subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=end_with_this_process
        ) as process:
            self._process = process
            cut_off = threading.Event()
            reader = threading.Thread(target=copy, args=(process.stdout, tail, cut_off), daemon=True)
            reader.start()
            if self._stopped.is_set():
                process.terminate()
            while (code := process.poll()) is None:
                if self._stopped.wait(0.2):
                    code = self._end(process)
                    break
                if cut_off.is_set():
                    process.terminate()
                    code = self._end(process)
                    break
            kill_children()
            reader.join(GRACE_S)
            return code, list(tail)

    def _end(self, process: subprocess.Popen[bytes]) -> int:
        try:
            return process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def _stop(self, *_: object) -> None:
        self._stopped.set()
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(OSError):
                self._process.terminate()

    def _untrusted(self) -> bool:
        try:
            return is_untrusted(self._folder)
        except (ConfigError, OSError, ValueError):
            return False  # The next start says what is wrong with the folder.

    def _why(self, code: int, tail: list[str]) -> Ending:
        if take_new_key(self._folder):
            return Ending("the coordinator has revoked this node's old key and knows its new one", again_s=0.0)
        return ending(self._folder, code, "\n".join(tail))


def copy(source: IO[bytes] | None, tail: deque[str], cut_off: threading.Event) -> None:
    """Copies lines to standard error, where the SuperNode would have written them, and keeps the last ones.

    Args:
        source: What the SuperNode writes.
        tail: Takes the lines.
        cut_off: Set at the line after which the SuperNode hangs.
    """
    for line in source or ():
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
        tail.append(line.decode("utf-8", "replace").rstrip())
        if HANDSHAKE in tail[-1]:
            cut_off.set()


def kill_children() -> None:
    """Kills everything that this process or a process below it has started; returns when nothing is left."""
    end = time.monotonic() + GRACE_S
    while (left := psutil.Process().children(recursive=True)) and time.monotonic() < end:
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=0.5)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass


def say(text: str) -> None:
    """Writes one line to the node's log."""
    sys.stderr.write(f"trfmoe: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(SuperNode(Path(sys.argv[1]), sys.argv[2:]).keep())
