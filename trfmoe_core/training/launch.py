"""Starts one process (rank) for each device by torch's elastic launcher; if one fails, stops all with a clear error.

`launch` runs in the parent, `run_rank` in each child. A child always ends when its parent does.
"""

import ctypes
import logging
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure, record
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from trfmoe_core.errors import RunError
from trfmoe_core.places import APP_FOLDER
from trfmoe_core.training.interrupt import SIGNALS
from trfmoe_core.training.ranks import Ranks, joined

SAVE_GRACE_S = 600
"""Seconds that interrupted ranks have to finish their step and save."""

_PR_SET_PDEATHSIG = 1
# Marks of the errors that ranks raise because another rank has died.
_CONSEQUENCES = ("closed by peer", "Connection reset", "DistBackendError", "gloo", "NCCL", "DistNetworkError")


def launch(module: str, arguments: Sequence[str], device: torch.device, size: int, scratch: Path) -> None:
    """Runs `python -m module` for every rank, and returns when all have succeeded.

    Args:
        module: Calls `run_rank` when it is run.
        arguments: Passed to the work of every rank.
        device: Only its type counts: rank i gets the i-th device of that type.
        size: Number of ranks.
        scratch: Folder for the ranks' output, deleted before and after.

    Raises:
        RunError: If a rank raised or died; the others are stopped.
        KeyboardInterrupt: If this process was interrupted or got SIGTERM or SIGHUP; the ranks were interrupted too, and
            have ended.
    """
    with _emptied(scratch), _environment(), _stopped_as_by_ctrl_c():
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=size,
            run_id=uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0",
            local_addr="127.0.0.1",
            max_restarts=0,
            monitor_interval=0.1,
            logs_specs=DefaultLogsSpecs(log_dir=str(scratch), redirects=Std.ALL),
        )
        try:
            elastic_launch(config, sys.executable)("-m", module, str(os.getpid()), device.type, *arguments)
        except ChildFailedError as error:
            raise RunError(_cause(error.failures, size)) from None
        except SignalException:
            raise KeyboardInterrupt from None


def run_rank(work: Callable[[Ranks, torch.device, list[str]], None]) -> None:
    """Does one rank's work in a process that `launch` started: `work(ranks, device, arguments)`."""
    parent, kind, *arguments = sys.argv[1:]
    _die_with(int(parent))

    def joined_work() -> None:
        device = torch.device("cpu") if kind == "cpu" else torch.device(kind, int(os.environ["LOCAL_RANK"]))
        with joined(device) as ranks:
            work(ranks, device, arguments)

    code = 1
    try:
        record(joined_work)()
        code = 0
    finally:
        if code:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        # The interpreter's own exit sometimes aborts, because threads of the process group still run.
        os._exit(code)


def _cause(failures: Mapping[int, ProcessFailure], size: int) -> str:
    """Returns a sentence about the failure that most probably came first."""

    def order(item: tuple[int, ProcessFailure]) -> tuple[int, int]:
        rank, failure = item
        if failure.exitcode < 0:
            # The launcher ends the other ranks by SIGTERM.
            return (3 if failure.exitcode == -signal.SIGTERM else 0), rank
        return (2 if any(mark in _text(failure) for mark in _CONSEQUENCES) else 1), rank

    rank, failure = min(failures.items(), key=order)
    who = f"rank {rank} of the {size} that trained together"
    if failure.exitcode < 0:
        hint = "; the system does that where memory runs out" if failure.exitcode == -signal.SIGKILL else ""
        return f"{who} was ended by {failure.signal_name()}{hint}; the others were stopped"
    return f"{who} failed: {_text(failure)}"


def _text(failure: ProcessFailure) -> str:
    message: Any = failure.message
    return str(message.get("message", message) if isinstance(message, dict) else message)


@contextmanager
def _emptied(folder: Path) -> Iterator[None]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _environment() -> Iterator[None]:
    """Sets variables so that children can import this code and the launcher waits until they have saved."""
    before = dict(os.environ)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(APP_FOLDER), *filter(None, [before.get("PYTHONPATH")])])
    os.environ["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = str(SAVE_GRACE_S)
    os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = signal.SIGINT.name
    for name, logger in logging.root.manager.loggerDict.items():
        if name.startswith("torch.distributed.") and isinstance(logger, logging.Logger):
            logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for key in os.environ.keys() - before.keys():
            del os.environ[key]
        os.environ.update(before)


@contextmanager
def _stopped_as_by_ctrl_c() -> Iterator[None]:
    """Makes SIGTERM and SIGHUP stop the ranks as Ctrl-C does, and restores the handlers afterwards.

    The launcher sends a signal on to the ranks. It also ends them by SIGTERM when one of them has failed, so they save
    on SIGINT alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in (signal.SIGTERM, signal.SIGHUP):
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _die_with(parent: int) -> None:
    """Makes the system kill this process when its parent ends, even if that is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
