"""A bar while data are prepared, on a terminal only: elsewhere nothing is written until it is done."""

import sys
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from scripts.output import Output


class DataProgress:
    """Context manager; call it with what is done, how much of it is, and how much there is (0: nobody knows)."""

    def __init__(self, output: Output) -> None:
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        if output.console.is_terminal and sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, console=output.console, transient=True)

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
            self._task = self._bar.add_task(what)
        self._bar.update(self._task, description=what, completed=done, total=total or None)
