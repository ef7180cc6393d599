"""A bar while data are prepared, on a terminal only: elsewhere nothing is written until it is done."""

import sys
from types import TracebackType
from typing import Self

from rich.progress import Progress, TaskID

from scripts.terminal.output import Output, one_line


class DataProgress:
    """Context manager. Call it with the name of the work, how much is done, and how much there is (0: unknown)."""

    def __init__(self, output: Output) -> None:
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        if output.console.is_terminal and sys.stderr.isatty():
            self._bar = output.bar()

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Shows how far it is."""
        if self._bar is None:
            return
        if self._task is None:
            self._task = self._bar.add_task(one_line(what))
        self._bar.update(self._task, description=one_line(what), completed=done, total=total or None)
