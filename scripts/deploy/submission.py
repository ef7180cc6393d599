"""One run on a SuperLink: registers nodes, submits the app, notices when its server app is lost, and submits again."""

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from scripts.deploy.kit import KitNode
from scripts.processes.control import Control
from scripts.processes.group import ProcessGroup
from scripts.run.simulation import app_folder, flower_environment
from server.run_folder.folder import RunFolder
from trfmoe_core.errors import RunError

CONNECTION = "trfmoe"
STATUS_DEADLINE_S = 60.0
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
        family: Starts Flower's commands.
        environment: Of these commands.
        address: Of the SuperLink.
        authority: The certificate that signed the SuperLink's.
    """

    def __init__(
        self, folder: RunFolder, family: ProcessGroup, environment: dict[str, str], address: str, authority: Path
    ) -> None:
        self.folder = folder
        self.losses = 0
        self.run_id = 0
        self.control = Control(address, authority)
        self._family = family
        self._environment = environment
        self._log = folder.path / "flower.log"
        self._status: tuple[str, str] | None = None
        self._seen = False
        self._free_since: float | None = None
        self._submitted_at = 0.0
        self._asked_at = 0.0
        self._told_away = False
        self._events_before = 0
        self._committed_before = 0
        self._connect(address, authority)

    def _connect(self, address: str, authority: Path) -> None:
        home = Path(self._environment["FLWR_HOME"])
        home.mkdir(parents=True, exist_ok=True)
        text = (
            f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\n'
            f"address = {json.dumps(address)}\nroot-certificates = {json.dumps(str(authority))}\n"
        )
        (home / "config.toml").write_text(text, encoding="utf-8")

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
            name for name, status in self.control.nodes().items() if status != "online" and name in registered
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
        self._asked_at = self._submitted_at
        self._family.start(
            f"flwr log {self.run_id}",
            ["flwr", "log", str(self.run_id), CONNECTION, "--stream"],
            self._environment,
            self._family.scratch,
            self._log,
        )

    def finished(self, tell: Callable[[str], None]) -> bool:
        """Returns True if the run has ended. A run whose server app was lost is submitted again, and has not.

        Args:
            tell: Called with a line when the run is submitted again.
        """
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
            self._lost("the server app was lost", tell)
        elif now - self._submitted_at > APP_DEADLINE_S:
            told = " ".join(self._ask())
            self._status = ("lost", f"no server app started within {APP_DEADLINE_S:g} s; Flower says {told}")
        elif now - self._asked_at > ASK_EVERY_S:
            self._asked_at = now
            status = self._ask()
            if status[0].startswith("finished"):
                self._lost(f"the server app did not start ({status[1]})", tell)
        return self._status is not None

    def status(self) -> tuple[str, str]:
        """Returns Flower's status of a finished run and its details."""
        return self._status or ("running", "")

    def _lost(self, what: str, tell: Callable[[str], None]) -> None:
        try:
            self.control.nodes()
        except RunError:
            if not self._told_away:
                tell(f"{what}; waiting for the SuperLink")
            self._told_away = True
            return
        self._told_away = False
        committed = len(self.folder.facts().committed)
        self.losses = 1 if committed > self._committed_before else self.losses + 1
        if self.losses > MAX_LOSSES:
            self._status = ("lost", f"{what} {self.losses} times without a round committed; see {self._log}")
            return
        tell(f"{what}; going on after round {committed} in a new run")
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
                status = self.control.runs().get(self.run_id, ("unknown", "the SuperLink does not know the run"))
            except RunError as error:
                status = ("unknown", str(error))
            if not until_finished or status[0].startswith("finished") or time.monotonic() > end:
                return status
            time.sleep(0.5)


class Engine(Protocol):
    """An engine that runs the rounds of a run folder."""

    def submit(self) -> None:
        """Starts the run."""

    def finished(self) -> bool:
        """Returns True if the run has come to its end; asked often."""

    def status(self) -> tuple[str, str]:
        """Returns the status of a finished run and details."""


class KitRun:
    """A run on the SuperLink of a kit, which others keep up.

    Args:
        folder: The run.
        family: Starts Flower's commands.
        kit: The coordinator's folder.
        port: Of its SuperLink.
        tell: Called with a line when the run is submitted again.
    """

    def __init__(
        self, folder: RunFolder, family: ProcessGroup, kit: Path, port: int, tell: Callable[[str], None]
    ) -> None:
        self._submission = Submission(
            folder, family, flower_environment(family.scratch), f"127.0.0.1:{port}", kit / "ca.crt"
        )
        self._tell = tell

    def submit(self) -> None:
        """Starts the run."""
        self._submission.submit()

    def finished(self) -> bool:
        """Returns True if the run has come to its end."""
        return self._submission.finished(self._tell)

    def status(self) -> tuple[str, str]:
        """Returns Flower's status of the finished run and details."""
        return self._submission.status()
