"""A family ends with its command: left normally, by an error, by SIGKILL, with or without its guard."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from scripts.processes.group import ProcessGroup
from tests.places import ROOT
from trfmoe_core.errors import RunError

# A daemon that detached itself twice and ignores SIGTERM, as stubborn as a process can be.
DAEMON = """
import os, signal, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        open(sys.argv[1], "w").write(str(os.getpid()))
        time.sleep(120)
    os._exit(0)
time.sleep(120)
"""
COMMAND = """
import os, sys, time
from pathlib import Path
from scripts.processes.group import ProcessGroup
with ProcessGroup() as family:
    folder = Path(sys.argv[1])
    argv = [sys.executable, "-c", sys.argv[2], str(folder / "daemon")]
    family.start("daemon", argv, dict(os.environ), folder, folder / "log")
    (folder / "scratch").write_text(str(family.scratch))
    time.sleep(120)
"""


def await_text(path: Path) -> str:
    for _ in range(400):
        if path.exists() and path.read_text():
            return path.read_text()
        time.sleep(0.05)
    raise AssertionError(f"{path} was not written")


def await_end(pid: int, attempts: int = 200) -> bool:
    for _ in range(attempts):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def start_command(folder: Path) -> tuple[subprocess.Popen[bytes], int, Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(folder), DAEMON], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    return process, int(await_text(folder / "daemon")), Path(await_text(folder / "scratch"))


def test_reports_starts_exits_and_output(tmp_path: Path) -> None:
    with ProcessGroup() as family:
        argv = [sys.executable, "-c", "import os; print(os.getcwd()); raise SystemExit(7)"]
        family.start("seven", argv, dict(os.environ), family.scratch, tmp_path / "log")
        assert family.wait("seven", 20) == 7
        assert not family.running("seven")
        assert (tmp_path / "log").read_text().strip() == str(family.scratch)
    assert not family.scratch.exists()


def test_an_unknown_program_is_one_clear_error(tmp_path: Path) -> None:
    with ProcessGroup() as family, pytest.raises(RunError, match="no-such-program"):
        family.start("x", ["no-such-program"], dict(os.environ), tmp_path, tmp_path / "log")


def test_leaving_stops_a_detached_daemon(tmp_path: Path) -> None:
    with ProcessGroup() as family:
        argv = [sys.executable, "-c", DAEMON, str(tmp_path / "daemon")]
        family.start("daemon", argv, dict(os.environ), tmp_path, tmp_path / "log")
        pid = int(await_text(tmp_path / "daemon"))
        assert pid in {process.pid for process in family.descendants()}
    assert await_end(pid, 1)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_the_family_ends_with_its_command(tmp_path: Path, number: signal.Signals) -> None:
    process, pid, scratch = start_command(tmp_path)
    process.send_signal(number)
    process.wait()
    assert await_end(pid)
    for _ in range(100):
        if not scratch.exists():
            break
        time.sleep(0.05)
    assert not scratch.exists()


def test_leaving_cleans_up_after_a_killed_guard(tmp_path: Path) -> None:
    with ProcessGroup() as family:
        argv = [sys.executable, "-c", DAEMON, str(tmp_path / "daemon")]
        family.start("daemon", argv, dict(os.environ), tmp_path, tmp_path / "log")
        pid = int(await_text(tmp_path / "daemon"))
        os.kill(psutil.Process(pid).ppid(), signal.SIGKILL)
        assert family.wait("daemon", 20) is None
        assert not family.alive
    assert await_end(pid)
