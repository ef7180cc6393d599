"""The facts of a journal that a run needs often, updated as the journal grows."""

from pathlib import Path
from typing import Any

from server.run_folder.journal import Event, JournalReader
from trfmoe_core.errors import RunFolderError


class RunFacts:
    """The facts in a journal about starts, commits and the end. Every entry is read once.

    Args:
        path: The journal.

    Attributes:
        entries: Number of entries.
        first: The first `run_started`, or an empty dictionary.
        started: The last `run_started`, or an empty dictionary.
        finished: The last `run_finished`. A run that was resumed since may still be running.
        committed: Round -> its `round_committed`, in order.
        evaluated: Round -> its `evaluated`.
    """

    def __init__(self, path: Path) -> None:
        self.first: Event = {}
        self.started: Event = {}
        self.finished: Event | None = None
        self.committed: dict[int, Event] = {}
        self.evaluated: dict[int, Event] = {}
        self._reader = JournalReader(path)

    @property
    def entries(self) -> int:
        """Number of entries that were read."""
        return self._reader.head.entries

    @property
    def ended(self) -> bool:
        """True if a `run_finished` follows the last `run_started`."""
        return self.finished is not None and self.finished["seq"] > self.started.get("seq", -1)

    def follow(self) -> "RunFacts":
        """Reads the entries that were added to the journal.

        Raises:
            RunFolderError: the journal cannot be read, or an entry lacks what its kind has.
        """
        number = self.entries
        try:
            for event in self._reader.read():
                self._feed(event)
                number = self.entries
        except (KeyError, TypeError, ValueError) as error:
            raise RunFolderError(
                f"{self._reader.path}: entry {number} lacks what its kind has ({error}); put the file back from a copy"
            ) from error
        return self

    def _feed(self, event: Event) -> None:
        kind: Any = event["event"]
        if kind == "run_started":
            self.started = event
            self.first = self.first or event
        elif kind == "run_finished":
            self.finished = event
        elif kind == "round_committed":
            self.committed[int(event["round"])] = event
        elif kind == "evaluated":
            self.evaluated[int(event["round"])] = event
