"""A node's trainer process takes the next messages, and never outlives its executor, its settings or its patience."""

import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from scripts.deploy.hand_over import SOCKET
from tests.places import ROOT

STAYING = """
import os, sys, time
from pathlib import Path
from scripts.deploy.node_clientapp import end_with_the_supernode
from scripts.deploy.staying import answer_messages

def answer(arguments):
    print(os.getpid(), *arguments, flush=True)
    return arguments != ["last"]

end_with_the_supernode()
answer_messages(answer, ["first"], Path(sys.argv[1]), float(sys.argv[2]))
print("ended", flush=True)
"""
EXECUTOR = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", *sys.argv[1:]])
time.sleep(60)
"""

HAND_OVER = """
import sys
from pathlib import Path
from scripts.deploy.hand_over import handed_over
sys.exit(0 if handed_over(Path(sys.argv[1]), sys.argv[2:]) else 1)
"""


def handed_over(node_file: Path, arguments: list[str]) -> bool:
    """As a program of this process's, which so plays the executor."""
    done = subprocess.run([sys.executable, "-c", HAND_OVER, str(node_file), *arguments], cwd=ROOT, check=False)
    return done.returncode == 0


def until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def node_file(tmp_path: Path) -> Path:
    path = tmp_path / ("a folder with a name that is longer than the path of a socket may be " * 2) / "node.yaml"
    path.parent.mkdir()
    path.write_text("name: n\ndata: [d]\n")
    return path


@pytest.fixture
def start(node_file: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def begin(idle_s: float = 30.0, below: bool = False) -> subprocess.Popen[str]:
        program = [sys.executable, "-c", *([EXECUTOR] if below else []), STAYING, str(node_file), str(idle_s)]
        process = subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()


def line(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    return process.stdout.readline().split()


def test_the_process_of_the_first_message_answers_the_next_ones(
    node_file: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    assert not handed_over(node_file, ["nobody is there"])
    process = start()
    assert line(process) == [str(process.pid), "first"]
    socket = node_file.with_name(SOCKET)
    until(socket.exists)
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    until(lambda: handed_over(node_file, ["--token", "second"]))
    assert line(process) == [str(process.pid), "--token", "second"]
    until(lambda: handed_over(node_file, ["last"]))
    assert line(process) == [str(process.pid), "last"]
    assert line(process) == ["ended"] and process.wait() == 0
    assert not socket.exists() and not handed_over(node_file, ["nobody is there"])


def test_it_ends_when_nothing_comes(node_file: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start(idle_s=0.2)
    assert line(process)[1:] == ["first"]
    assert line(process) == ["ended"]
    assert not node_file.with_name(SOCKET).exists()


def test_other_settings_and_other_executors_get_a_process_of_their_own(
    node_file: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    process = start()
    assert line(process)[1:] == ["first"]
    until(node_file.with_name(SOCKET).exists)
    node_file.write_text("name: n\ndata: [d]\nlimits: {memory_mb: 100}\n")
    assert not handed_over(node_file, ["second"])
    assert line(process) == ["ended"], "it has the old limits"
    process = start(below=True)
    assert line(process)[1:] == ["first"]
    until(node_file.with_name(SOCKET).exists)
    assert not handed_over(node_file, ["second"]), "this test is not its executor"
    assert line(process) == ["ended"]


def test_an_idle_process_ends_with_its_executor(node_file: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    executor = start(below=True)
    staying = psutil.Process(int(line(executor)[0]))
    until(node_file.with_name(SOCKET).exists)
    assert staying.ppid() == executor.pid
    os.kill(executor.pid, 9)
    executor.wait()
    until(lambda: not staying.is_running() or staying.status() == psutil.STATUS_ZOMBIE)
