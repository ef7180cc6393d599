"""Lets Ctrl-C, SIGTERM and SIGHUP stop a run between two steps instead of in the middle of one."""

import signal
import threading
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, a service manager's stop, and a terminal that was closed."""


class Interrupt:
    """Context manager that records the first of some signals; a second one raises `KeyboardInterrupt`.

    Call it to ask whether one came. A signal that the process ignores, as SIGHUP under nohup, stays ignored. Outside
    the main thread Python handles no signals: there none ever comes.
    """

    def __init__(self, signals: Sequence[signal.Signals] = SIGNALS) -> None:
        self._signals = signals
        self._asked = False
        self._before: dict[int, Any] = {}

    def __call__(self) -> bool:
        """Returns whether a signal came."""
        return self._asked

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in self._signals:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True
        self._restore()

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())
