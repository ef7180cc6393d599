"""Stands in for Flower's `flwr-clientapp` on a node: runs an app only when the node's owner allowed its code.

Flower ships an app's code to the nodes and imports it, so no check inside that code means anything. This program is the
owner's own. It imports nothing of this project, for the app's modules have the same names and must be the app's.
"""

import contextlib
import hashlib
import os
import re
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import yaml
from flwr.supernode.cli import flwr_clientapp
from flwr.supernode.runtime import run_clientapp as runner

from scripts.deploy.hand_over import STAY
from scripts.deploy.staying import answer_messages

ALLOWED_FILE = "allowed_apps.txt"
TOLD_FILE = "told.txt"
TOLD_AGAIN_S = 3600.0
"""A refusal that the owner was told of is not told again for so long: the coordinator asks again and again."""
LOOK_EVERY_S = 0.5
STAY_MINUTES = 10.0
"""How long the process waits for the next message, if the owner's settings do not say (`stay_minutes`)."""
HOOKED = (
    *("pull_task_input", "install_from_fab", "get_project_dir", "Error", "log"),
    *("register_signal_handlers", "start_parent_process_monitor", "flwr_exit"),
)


class OwnError(Exception):
    """An error of this program's.

    Args:
        told: What the coordinator is told: nothing of this machine's paths and files.
        more: What only this node's log says besides.
    """

    def __init__(self, told: str, more: str = "") -> None:
        super().__init__(told + more)
        self.told = told


class RefusedError(OwnError):
    """The owner has not allowed this code."""


class TerminatedError(OwnError):
    """Somebody asked this process to end. As an error it is answered; Flower's own way out wedges the SuperNode."""


def main() -> None:
    """Checks and runs messages of one run. Files are readable by this account alone, and core dumps are off."""
    end_with_the_supernode()
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    node_file = Path(os.environ["TRFMOE_NODE_FILE"])
    missing = [name for name in HOOKED if not hasattr(runner, name)]
    if missing:
        sys.exit(f"refused: this release of Flower has no {missing[0]}, so apps cannot be checked; install flwr 1.41.0")
    app = OneApp()
    check(node_file.with_name(ALLOWED_FILE), app)
    keep_errors_home()
    say_once(node_file.with_name(TOLD_FILE))
    limit_memory(node_file)
    idle_s = 60 * stay_minutes(node_file)
    if STAY not in os.environ or not idle_s:
        flwr_clientapp()
        return
    flower = OneMessage()

    def answer(arguments: list[str]) -> bool:
        return flower.answer(arguments) and not app.changed

    answer_messages(answer, sys.argv[1:], node_file, idle_s)


class OneApp:
    """The app of the one run whose messages this process answers. Another run's message is its last."""

    def __init__(self) -> None:
        self.changed = False
        self._run: tuple[Any, str] | None = None
        self._folder = ""

    def take(self, run_id: object, fab_hash: str) -> None:
        """Takes in whose message has come, and unloads the code of another run's app."""
        if self._run not in (None, (run_id, fab_hash)):
            self.changed = True
            self._unload()
        self._run = (run_id, fab_hash)

    def installed(self, folder: Path) -> None:
        """Takes in where the app lies."""
        self._folder = str(folder)

    def _unload(self) -> None:
        if not self._folder:
            return
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None) or "").startswith(self._folder + os.sep):
                del sys.modules[name]
        sys.path[:] = [entry for entry in sys.path if entry != self._folder]


class OneMessage:
    """Flower's client as a function: Flower ends the process after a message, and this lets it go on."""

    def __init__(self) -> None:
        self._at_the_end: list[Callable[[], None]] = []
        runner.register_signal_handlers = self._remember  # type: ignore[attr-defined]
        runner.start_parent_process_monitor = lambda pid: None  # type: ignore[attr-defined, assignment]
        runner.flwr_exit = self._finish  # type: ignore[attr-defined, assignment]

    def answer(self, arguments: list[str]) -> bool:
        """Answers a message. Returns False if the process was asked to end meanwhile."""
        sys.argv[1:] = arguments
        answer_termination()
        flwr_clientapp()
        terminated = signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        return not terminated

    def _remember(self, *_: object, exit_handlers: list[Callable[[], None]] | None = None, **__: object) -> None:
        self._at_the_end = list(exit_handlers or [])

    def _finish(self, *_: object, **__: object) -> None:
        for handler in self._at_the_end:
            handler()
        self._at_the_end = []


def end_with_the_supernode() -> None:
    """Kills this process and its children soon after the process above it has ended: the executor, or its SuperNode.

    Flower's own watch interrupts the main thread, which then tries to deliver its result to a SuperNode that is gone.
    It also takes a process that has ended for a living one until somebody reaps it. This watch asks who the parent is.
    """
    executor = psutil.Process(os.getppid())
    words = executor.cmdline()
    supernode = int(words[words.index("--parent-pid") + 1]) if "--parent-pid" in words else None

    def alone() -> bool:
        try:
            return os.getppid() != executor.pid or (supernode is not None and executor.ppid() != supernode)
        except psutil.Error:
            return True

    def watch() -> None:
        while not alone():
            time.sleep(LOOK_EVERY_S)
        for process in (*psutil.Process().children(recursive=True), psutil.Process()):
            with contextlib.suppress(psutil.Error):
                process.kill()

    threading.Thread(target=watch, daemon=True, name="end with the SuperNode").start()


def check(allowed_file: Path, app: OneApp | None = None) -> None:
    """Makes Flower's client refuse every bundle whose content is not allowed, before any of it is unpacked.

    Args:
        allowed_file: The owner's list.
        app: Is told of every message's run and bundle.
    """
    app = app or OneApp()
    pull, install, project_dir = (getattr(runner, name) for name in HOOKED[:3])
    task: dict[str, Any] = {}

    def pull_and_remember(client: Any) -> Any:
        message, context, run, fab = pull(client)
        task.update(run=run, fab=fab)
        app.take(getattr(run, "run_id", None), fab.hash_str)
        return message, context, run, fab

    def install_if_allowed(content: bytes, *arguments: Any, **options: Any) -> Any:
        refuse_unknown(content, allowed_file)
        folder = install(content, *arguments, **options)
        run, fab = task["run"], task["fab"]
        named = project_dir(run.fab_id, run.fab_version, fab.hash_str)
        if Path(named).resolve() != Path(folder).resolve():
            raise RefusedError("refused: the app that the run names is not the bundle that came with it", f": {named}")
        app.installed(Path(named))
        answer_termination()
        return folder

    for name, hook in zip(HOOKED, (pull_and_remember, install_if_allowed), strict=False):
        setattr(runner, name, hook)


def refuse_unknown(content: bytes, allowed_file: Path) -> None:
    """Refuses a bundle whose SHA-256 does not stand in the owner's file.

    Raises:
        RefusedError: naming the hash and the remedy.
    """
    digest = hashlib.sha256(content).hexdigest()
    text = allowed_file.read_text(encoding="utf-8") if allowed_file.is_file() else ""
    if digest not in re.findall(r"^[0-9a-f]{64}\b", text, re.MULTILINE):
        raise RefusedError(
            f"refused: the owner of this node has not allowed the app {digest}; the owner allows it by `trfmoe deploy "
            "allow`, where the coordinator's release is installed",
            f" (here: trfmoe deploy allow {allowed_file.parent})",
        )


def keep_errors_home() -> None:
    """Makes Flower send only the class of an error, not its text, which may name a path or quote a file."""
    real: Callable[..., Any] = runner.Error  # type: ignore[attr-defined]

    def without_text(code: int, reason: str | None = None) -> Any:
        error = sys.exc_info()[1]
        kind = type(error).__name__
        known = kind if kind.isidentifier() and kind.isascii() and len(kind) <= 60 else "an error"
        told = error.told if isinstance(error, OwnError) else f"the client met {known}; the node's log says more"
        return real(code=code, reason=told)

    runner.Error = without_text  # type: ignore[attr-defined,assignment]


def say_once(told_file: Path) -> None:
    """Makes Flower log an error of this program's in one line, and the same one once in a while only."""
    real: Callable[..., Any] = runner.log  # type: ignore[attr-defined]

    def briefly(level: int, text: str, *arguments: Any, exc_info: Any = None, **options: Any) -> None:
        if not isinstance(exc_info, OwnError):
            real(level, text, *arguments, exc_info=exc_info, **options)
            return
        with contextlib.suppress(OSError, ValueError):  # without the note it is told once more
            if told_file.read_text("utf-8") == str(exc_info) and told_file.stat().st_mtime > time.time() - TOLD_AGAIN_S:
                return
        real(level, "%s", exc_info)
        with contextlib.suppress(OSError):
            told_file.write_text(str(exc_info), "utf-8")

    runner.log = briefly  # type: ignore[attr-defined,assignment]


def limit_memory(node_file: Path) -> None:
    """Applies the owner's `limits.memory_mb` to this process and what it starts, before any of the app's code runs."""
    limits = _settings(node_file).get("limits")
    megabytes = limits.get("memory_mb") if isinstance(limits, dict) else None
    if isinstance(megabytes, int) and not isinstance(megabytes, bool):
        # Private writable memory. Not the address space, of which CUDA and memory-mapped tokens take what they like.
        resource.setrlimit(resource.RLIMIT_DATA, (megabytes << 20, megabytes << 20))


def stay_minutes(node_file: Path) -> float:
    """Returns how long this process may wait for the next message, as the owner says."""
    minutes = _settings(node_file).get("stay_minutes", STAY_MINUTES)
    return float(minutes) if isinstance(minutes, int | float) and minutes >= 0 else STAY_MINUTES


def _settings(node_file: Path) -> dict[str, Any]:
    settings = yaml.safe_load(node_file.read_text(encoding="utf-8"))
    return settings if isinstance(settings, dict) else {}


def answer_termination() -> None:
    """Turns SIGTERM and SIGINT into an error of the app, which Flower answers; later ones are ignored, so it gets out.

    Flower's own way out wedges the SuperNode.
    """

    def terminated(number: int, frame: object) -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.SIG_IGN)
        raise TerminatedError(f"the client of this node was terminated ({signal.Signals(number).name})")

    handler: Callable[[int, Any], None] = terminated
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, handler)


if __name__ == "__main__":
    main()
