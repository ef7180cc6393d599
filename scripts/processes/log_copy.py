"""Copies a run's log from the SuperLink while the run goes on."""

import threading
from collections.abc import Callable

from scripts.processes.control import Control
from trfmoe_core.errors import RunError

_RETRY_S = 2.0


class LogCopy(threading.Thread):
    """A thread that hands on the log of one run until the run ends. It tries again when the SuperLink is away.

    Args:
        control: The SuperLink.
        run_id: Flower's.
        write: Called with every new part of the log.
        after: Seconds since 1970. Earlier lines are left out.
    """

    def __init__(self, control: Control, run_id: int, write: Callable[[str], None], after: float = 0.0) -> None:
        super().__init__(daemon=True, name=f"log of run {run_id}")
        self._control = control
        self._run_id = run_id
        self._write = write
        self._after = after
        self._over = threading.Event()

    def run(self) -> None:
        """Copies until the run ends or `stop` is called."""
        while not self._over.is_set():
            try:
                for text, latest in self._control.stream_log(self._run_id, self._after):
                    if self._over.is_set():
                        return
                    self._write(text)
                    self._after = latest
                return
            except RunError:
                self._over.wait(_RETRY_S)

    def stop(self) -> None:
        """Ends the copy. A part that is on its way is not written."""
        self._over.set()
