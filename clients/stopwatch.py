"""Measures how a node spends the seconds between a message and its reply."""

import time

import psutil


class Stopwatch:
    """Seconds by owner. The first message of a process also counts the time since the process began, as `start`."""

    _begun = False

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()
        if not Stopwatch._begun:
            Stopwatch._begun = True
            self.seconds["start"] = max(0.0, time.time() - psutil.Process().create_time())

    def lap(self, owner: str) -> None:
        """Gives the time since the last call to `owner`."""
        now = time.monotonic()
        self.seconds[owner] = self.seconds.get(owner, 0.0) + now - self._last
        self._last = now

    def rounded(self) -> dict[str, float]:
        """Returns the seconds, rounded to a tenth of a millisecond."""
        return {owner: round(seconds, 4) for owner, seconds in self.seconds.items()}
