"""One run on a SuperLink: registers nodes, submits the app, notices when its server app is lost, and submits again."""

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from scripts.deploy.kit.kit import KitNode
from scripts.processes.control import Control
from scripts.processes.log_copy import LogCopy
from scripts.run.outcome import STOPPED
from scripts.run.simulation import app_folder
from server.run_folder.folder import RunFolder
from trfmoe_core.errors import RunError

STATUS_DEADLINE_S = 60.0
LOG_DEADLINE_S = 5.0
APP_DEADLINE_S = 600.0
LOST_AFTER_S = 1.5
ASK_EVERY_S = 5.0
MAX_LOSSES = 3


class Submission:
    """The run of a run folder on a SuperLink of this machine.

    The server app holds the run folder's lock as long as it lives, so a free lock without an end in the journal means
    that it was lost, whoever started it.

    Args:
        folder: The run.
        control: The SuperLink.
        tell: Called with a line when the run is submitted again.
    """

    def __init__(self, folder: RunFolder, control: Control, tell: Callable[[str], None]) -> None:
        self.folder = folder
        self.losses = 0
        self.run_id = 0
        self.control = control
        self._tell = tell
        self._log = folder.path / "flower.log"
        self._status: tuple[str, str] | None = None
        self._seen = False
        self._free_since: float | None = None
        self._submitted_at = 0.0
        self._asked_at = 0.0
        self._told_away = False
        self._attached = False
        self._events_before = 0
        self._committed_before = 0
        self._copy: LogCopy | None = None

    def register(self, nodes: Sequence[tuple[Path, KitNode]]) -> None:
        """Registers public keys under the names of their nodes; a key that is registered already is left as it is.

        Raises:
            RunError: the SuperLink refuses one.
        """
        for path, node in nodes:
            self.control.register(path.read_bytes(), node.registered)

    def await_online(self, registered: Sequence[str], deadline_s: float) -> None:
        """Waits until Flower sees all of these registered names.

        Raises:
            RunError: some do not come in time.
        """
        end = time.monotonic() + deadline_s
        while missing := sorted(
            name for name, node in self.control.nodes().items() if node.status != "online" and name in registered
        ):
            if time.monotonic() > end:
                raise RunError(f"{', '.join(missing)}: not online after {deadline_s:g} s; see {self.folder.path}/logs")
            time.sleep(0.5)

    def submit(self) -> None:
        """Starts the run, or goes on with it in a new one.

        Raises:
            RunError: Flower does not take it.
        """
        settings = {"recipe": str(self.folder.path / "recipe.yaml"), "run-dir": str(self.folder.path)}
        facts = self.folder.facts()
        self._events_before, self._committed_before = facts.entries, len(facts.committed)
        self.run_id = self.control.start(app_folder(), settings)
        self._seen, self._free_since, self._submitted_at = False, None, time.monotonic()
        self._attached = False
        self._asked_at = self._submitted_at
        self._copy_log(0.0)

    def attach(self, run_id: int) -> None:
        """Follows a run that was submitted earlier and goes on.

        Raises:
            RunError: The SuperLink does not answer.
        """
        self.run_id, self._attached = run_id, True
        facts = self.folder.facts()
        started = facts.started.get("seq", 0)
        # A run that waits for its start has no entries yet, and an earlier end is not its own.
        self._events_before = facts.entries if facts.ended and not self.folder.is_locked() else started
        self._committed_before = len(facts.committed)
        self._submitted_at = self._asked_at = time.monotonic()
        status = self._ask()
        if status[0].startswith("finished"):
            self._status = status
        self._copy_log(self._log.stat().st_mtime if self._log.exists() else 0.0)

    def _copy_log(self, after: float) -> None:
        if self._copy is not None:
            self._copy.stop()
        self._copy = LogCopy(self.control, self.run_id, self._append_log, after)
        self._copy.start()

    def _append_log(self, text: str) -> None:
        try:
            with self._log.open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:  # the run does not depend on it
            self._tell(f"{self._log}: not written ({error.strerror}); `trfmoe deploy logs` asks the SuperLink")
            if self._copy is not None:
                self._copy.stop()

    def finished(self) -> bool:
        """Returns True if the run has ended. If only its server app was lost, it is submitted again."""
        if self._status is not None:
            return True
        if self.folder.is_locked():
            self._seen, self._free_since = True, None
            return False
        now = time.monotonic()
        self._free_since = self._free_since or now
        if now - self._free_since < LOST_AFTER_S:
            return False
        if self._ended_in_journal():
            self._status = self._ask(until_finished=True)
        elif self._seen:
            status = self._ask()
            if status[0] == STOPPED:  # by the operator, so it does not go on
                self._status = status
            else:
                self._lost("the server app was lost")
        elif now - self._submitted_at > APP_DEADLINE_S:
            told = " ".join(self._ask())
            self._status = ("lost", f"no server app started within {APP_DEADLINE_S:g} s; Flower says {told}")
        elif now - self._asked_at > ASK_EVERY_S:
            self._asked_at = now
            status = self._ask()
            if status[0].startswith("finished"):
                what = "was lost" if self._attached else "did not start"
                self._lost(f"the server app {what} ({status[1] or status[0]})")
        return self._status is not None

    def status(self) -> tuple[str, str]:
        """Returns Flower's status of a finished run and its details."""
        if self._copy is not None:
            self._copy.join(LOG_DEADLINE_S)
        return self._status or ("running", "")

    def _lost(self, what: str) -> None:
        try:
            self.control.nodes()
        except RunError:
            if not self._told_away:
                self._tell(f"{what}; waiting for the SuperLink")
            self._told_away = True
            return
        self._told_away = False
        committed = len(self.folder.facts().committed)
        self.losses = 1 if committed > self._committed_before else self.losses + 1
        if self.losses > MAX_LOSSES:
            self._status = ("lost", f"{what} {self.losses} times without a round committed; see {self._log}")
            return
        self._tell(f"{what}; going on after round {committed} in a new run")
        with contextlib.suppress(RunError):  # it may know by itself by now that the run has ended
            self.control.stop(self.run_id)
        try:
            self.submit()
        except RunError as error:
            self._status = ("lost", f"{what}, and no new run was taken: {error}")

    def _ended_in_journal(self) -> bool:
        finished = self.folder.facts().finished
        return finished is not None and finished["seq"] >= self._events_before

    def _ask(self, until_finished: bool = False) -> tuple[str, str]:
        end = time.monotonic() + STATUS_DEADLINE_S
        while True:
            try:
                state = self.control.runs().get(self.run_id)
                status = state[:2] if state else ("unknown", "the SuperLink does not know the run")
            except RunError as error:
                status = ("unknown", str(error))
            if not until_finished or status[0].startswith("finished") or time.monotonic() > end:
                return status
            time.sleep(0.5)
