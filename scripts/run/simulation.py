"""Runs a Flower app on a simulation SuperLink of its own and tells the run's real outcome."""

import contextlib
import os
import re
import socket
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from scripts.processes.control import Control
from scripts.processes.group import ProcessGroup
from scripts.processes.log_copy import LogCopy
from scripts.processes.proxies import mend_environment
from trfmoe_core.errors import MachineError, RunError
from trfmoe_core.places import APP_FOLDER

PROGRAMS = ("flwr", "flower-superlink", "flower-superexec", "flower-supernode", "flwr-simulation")
DATABASE_PROGRAMS = ("flower-superlink", "flower-supernode")
_UNRESOLVED = """import runpy
from pathlib import Path
from flwr.supercore.state.alembic import utils
utils.ALEMBIC_DIR = Path(utils.__file__).parent
runpy.run_path({program!r}, run_name="__main__")
"""
"""Flower resolves the link to its tables' versions and then parts the list of paths at spaces: without this a database
below a path with a space stays empty."""
SHARED_MEMORY = Path("/dev/shm")
START_DEADLINE_S = 60.0
LOG_DEADLINE_S = 2.0
POLL_S = 0.5
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def app_folder() -> Path:
    """Returns the folder that a SuperLink is given as the app: the one with this project's pyproject.toml.

    Raises:
        RunError: the package is installed without it.
    """
    if not (APP_FOLDER / "pyproject.toml").is_file():
        raise RunError(f"{APP_FOLDER}: no pyproject.toml; run from a checkout, installed with `make install`")
    return APP_FOLDER


EXECUTOR_POLL_S = "0.25"
"""How often an executor asks its SuperLink or SuperNode for work; Flower's own second is time that a round loses."""


LOG_ENCODING = "utf-8:backslashreplace"
"""Of what processes write, whatever the terminal of the command that starts them can show."""


def flower_environment(home: Path) -> dict[str, str]:
    """Returns the environment of every Flower process: own home, no telemetry, no update check, no installs.

    Of the user's proxies those stay that can be used, for a node's downloads and for reports to W&B.
    """
    mend_environment()
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("FLWR_", "RAY_", "PYTHONPATH"))
    }
    return {
        **environment,
        "PATH": os.pathsep.join(
            (str(home / "bin"), str(Path(sys.executable).parent), environment.get("PATH", os.defpath))
        ),
        "FLWR_HOME": str(home / "flwr"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": EXECUTOR_POLL_S,
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "RAY_TMPDIR": str(home),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "0",
        "PYTHONUNBUFFERED": "1",
        "PYTHONIOENCODING": LOG_ENCODING,
    }


def free_port() -> int:
    """Returns a TCP port of the loopback interface that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def check_shared_memory(folder: Path = SHARED_MEMORY) -> None:
    """Makes sure that Ray, which asks for no other folder, can keep messages in shared memory.

    Raises:
        MachineError: it cannot.
    """
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise MachineError(
            f"{folder}: cannot be written ({error.strerror}), and Ray keeps the nodes' messages there; "
            "mount it, or run the recipe on real processes, which need none: trfmoe deploy local"
        ) from error


def install_programs(home: Path) -> None:
    """Puts Flower's programs into `home/bin`, with a Python below `home` too.

    Ray starts its workers by the path of this Python in an unquoted shell command, so that path may hold no space.

    Raises:
        MachineError: Flower is not installed beside this Python, or the folder cannot be written.
    """
    try:
        _install_programs(home)
    except OSError as error:
        raise MachineError(f"{home}: cannot be written ({error.strerror}); free space there, or set TMPDIR") from error


def _install_programs(home: Path) -> None:
    python = Path(sys.executable)
    (home / "env").symlink_to(python.parent.parent)
    here = home / "env" / python.parent.name
    (home / "bin").mkdir()
    for name in PROGRAMS:
        if not (here / name).is_file():
            raise MachineError(f"{name}: not found beside {python}; run `make install`")
        wrapper = home / "bin" / name
        program = here / name
        if name in DATABASE_PROGRAMS:
            program = home / "unresolved" / name  # by this name others find the process
            program.parent.mkdir(exist_ok=True)
            program.write_text(_UNRESOLVED.format(program=str(here / name)), encoding="utf-8")
        wrapper.write_text(f'#!/bin/sh\nexec "{here / python.name}" -P "{program}" "$@"\n', encoding="utf-8")
        wrapper.chmod(0o755)


class FlowerSimulation:
    """Context manager around one SuperLink, one run and its Ray; all of it has ended when it is left."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._log_start = log.stat().st_size if log.exists() else 0
        self._family = ProcessGroup()
        self._environment = flower_environment(self._family.scratch)
        self._bin = self._family.scratch / "bin"
        self._status: tuple[str, str] | None = None
        self._run_id = 0
        self._copy: LogCopy | None = None
        self._app_seen: psutil.Process | None = None
        self._next_poll = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._copy is not None:
            self._copy.stop()
        self._family.close()

    def submit(self, app: Path, num_nodes: int, run_config: Mapping[str, str], federation: Mapping[str, float]) -> None:
        """Starts a run.

        Args:
            app: The app's folder.
            num_nodes: How many nodes are simulated.
            run_config: The run's configuration.
            federation: Further settings of the simulation engine by Flower's names.

        Raises:
            RunError: the SuperLink or the run does not start; the message ends with the log's last lines.
        """
        if sys.platform == "linux":
            check_shared_memory()
        # Once in about ten runs Flower did not find the server app in its own copy of the app ("No module named
        # 'server'", cause unknown). The original, which has the same code, stands behind the copy on the path.
        self._environment["PYTHONPATH"] = str(app)
        install_programs(self._family.scratch)
        self._start_superlink()
        settings = {"num-supernodes": num_nodes, **federation}
        self._run_id = self._control.start(
            app, run_config, {name.replace("-", "_"): value for name, value in settings.items()}
        )
        self._copy = LogCopy(self._control, self._run_id, self._append_log)
        self._copy.start()

    def finished(self) -> bool:
        """Whether the run has come to an end, also by the loss of one of Flower's processes. Cheap to ask often."""
        if self._status is None and time.monotonic() >= self._next_poll:
            self._next_poll = time.monotonic() + POLL_S
            self._status = self._look()
        return self._status is not None

    def status(self) -> tuple[str, str]:
        """Returns Flower's status of a finished run and its details, such as `("finished:completed", "")`."""
        return self._status or ("running", "")

    def log_text(self) -> str:
        """Returns what this run has written to the log so far, without colours."""
        with contextlib.suppress(FileNotFoundError), self._log.open("rb") as file:
            file.seek(self._log_start)
            return ANSI.sub("", file.read().decode("utf-8", errors="replace"))
        return ""

    def log_tail(self, lines: int = 12) -> str:
        """Returns the last lines of the log."""
        return "\n".join("  " + line for line in self.log_text().splitlines()[-lines:])

    def _start(self, name: str, argv: list[str], log: Path | None = None) -> None:
        self._family.start(name, argv, self._environment, self._family.scratch, log or self._log)

    def _start_superlink(self) -> None:
        for attempt in range(3):  # another program may take the port between our look and Flower's
            port = free_port()
            self._control = Control(f"127.0.0.1:{port}", None)
            name = f"flower-superlink {attempt}"
            self._start(
                name,
                [
                    *(str(self._bin / "flower-superlink"), "--insecure", "--simulation", "--isolation", "subprocess"),
                    *("--host", "127.0.0.1", "--port", str(port), "--disable-runtime-dependency-installation"),
                ],
            )
            self._superlink = name
            deadline = time.monotonic() + START_DEADLINE_S
            while self._family.running(name) and time.monotonic() < deadline:
                if _healthy(port):
                    return
                time.sleep(0.2)
        raise RunError(f"flower-superlink: did not start; {self._log} ends with:\n{self.log_tail()}")

    def _look(self) -> tuple[str, str] | None:
        if not self._family.alive:
            return "lost", "the guard of the processes was killed"
        if not self._family.running(self._superlink):
            return "lost", "the SuperLink ended"
        if self._app_seen is None:
            self._app_seen = self._find_app()
        app_ended = self._app_seen is not None and not _lives(self._app_seen)
        try:
            state = self._control.runs().get(self._run_id)
        except RunError as error:
            return ("lost", str(error)) if app_ended else None
        if state is not None and state.finished:
            if self._copy is not None:
                self._copy.join(LOG_DEADLINE_S)
            return state.status, state.details
        # A server app that ends by itself reports first; this one was killed.
        return ("lost", "the server app was killed") if app_ended else None

    def _append_log(self, text: str) -> None:
        # The run does not depend on its log, and a full disk is told by the journal.
        with contextlib.suppress(OSError), self._log.open("a", encoding="utf-8") as file:
            file.write(text)

    def _find_app(self) -> psutil.Process | None:
        for process in self._family.descendants():
            with contextlib.suppress(psutil.Error):
                if any(Path(part).name == "flwr-simulation" for part in process.cmdline()[:3]):
                    return process
        return None


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _healthy(port: int) -> bool:
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{port}/health", timeout=1.0) as answer:
            return int(answer.status) == 200
    except (urllib.error.URLError, OSError):
        return False
