"""Chooses the number of threads of a training process while it trains, by the time that its steps take.

Threads share the work of a step evenly and wait for the slowest. On an idle machine more threads are faster. Beside
other busy processes fewer are, because a thread that has to wait for a core makes all the others wait.
"""

import time
from collections.abc import Callable
from functools import cache
from statistics import median

import torch

from trfmoe_core.config.training import TrainingConfig
from trfmoe_core.processors import resolve_threads

STEPS = 3
"""A number of threads is judged by the median of at least so many steps,"""
SECONDS = 0.5
"""which take at least so long together."""
GAIN = 1.05
"""Another number of threads is taken if its steps are faster by this factor."""
HOLD = 20
"""A trial takes at most about one part in so many of the time."""
LEAST_HOLD_S = 15.0
"""No trial begins sooner after the last one."""


class ThreadChoice:
    """Takes half or twice as many threads now and then, and keeps them if the steps become faster.

    It begins with the most and at once tries half of them. The steps have to be of equal size. Other numbers of threads
    change the last bits of what is computed.

    Args:
        most: The largest number of threads, and the first.
        set_threads: Sets the number.
        clock: Seconds.
    """

    def __init__(
        self,
        most: int,
        set_threads: Callable[[int], None] = torch.set_num_threads,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._most, self._set_threads, self._clock = most, set_threads, clock
        self.threads = most
        self._usual_s: float | None = None
        self._tried: int | None = None
        self._upwards = False
        self._next_trial = clock()
        self._steps_s: list[float] = []
        self._last: float | None = None
        self._restart()

    def begin(self) -> None:
        """Sets the number of threads. Call it before the first of several steps that follow each other at once."""
        self._restart()

    def step_done(self) -> None:
        """Takes note of a step that has ended. The first one after a change does not count: kernels are made in it."""
        now = self._clock()
        if self._last is not None:
            self._steps_s.append(now - self._last)
        self._last = now
        if len(self._steps_s) < STEPS or sum(self._steps_s) < SECONDS:
            return
        found = median(self._steps_s)
        if self._tried is None:
            self._usual_s = found
            if now >= self._next_trial:
                self._try_another()
            else:
                self._steps_s.clear()
            return
        if self._usual_s is not None and found * GAIN < self._usual_s:
            self.threads, self._next_trial = self._tried, now  # What is better still may lie further on.
        else:
            self._upwards = not self._upwards
            self._next_trial = now + max(LEAST_HOLD_S, HOLD * sum(self._steps_s))
        self._tried = None
        self._restart()

    def _try_another(self) -> None:
        numbers = [self.threads // 2, min(self._most, 2 * self.threads)]
        if self._upwards:
            numbers.reverse()
        self._tried = next((number for number in numbers if number not in (0, self.threads)), None)
        self._restart()

    def _restart(self) -> None:
        self._steps_s.clear()
        self._last = None
        self._set_threads(self._tried or self.threads)


def thread_choice_for(
    config: TrainingConfig, own: int | None, device: torch.device, processes: int
) -> ThreadChoice | None:
    """Returns what chooses the number of threads while this process trains; None if it is fixed.

    It is fixed if somebody has set it; if several processes train one model, because they wait for each other; and for
    compiled layers, which would be compiled anew for every number.

    Args:
        config: The recipe's.
        own: The node's own number of threads, if it has one.
        device: Where the model is trained.
        processes: That train the model together.
    """
    if config.threads != "auto" or own is not None or config.compile or device.type != "cpu" or processes > 1:
        return None
    most = resolve_threads("auto")
    return _of_this_process(most) if most > 1 else None


@cache
def _of_this_process(most: int) -> ThreadChoice:
    """Goes on from one round to the next."""
    return ThreadChoice(most)
