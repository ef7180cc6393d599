"""Flower's `flower-supernode`, which asks for its next message sooner in short rounds.

Flower's own waits three seconds between two questions, so a round begins up to three seconds late on some node, and
half a second between two looks for the answer of the app. Here a wait takes a hundredth of the time that was waited
already, within bounds: short rounds lose little, and in long ones a SuperLink is asked no more often than by Flower.
"""

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

from flwr.supercore.state.alembic import utils as database
from flwr.supernode import start_client_internal
from flwr.supernode.cli import flower_supernode

SHARE = 0.01
"""Of the time that was waited already."""
SHORTEST = 6
"""A wait is at least Flower's own, divided by this."""
RELIEF = 10
"""A wait is at least so many times as long as what was done since the last one: a slow SuperLink is asked rarely."""


class Waits:
    """Stands in for `time.sleep` in the loops of a SuperNode.

    Args:
        sleep: Waits for some seconds.
        clock: Seconds.
    """

    def __init__(
        self, sleep: Callable[[float], None] = time.sleep, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._sleep, self._clock = sleep, clock
        self._kind: float | None = None
        self._begun = self._last = clock()

    def sleep(self, seconds: float) -> None:
        """Waits for at most `seconds`. A series of waits ends where one for another time begins."""
        now = self._clock()
        if seconds != self._kind:
            self._kind, self._begun, self._last = seconds, now, now
        wanted = max(seconds / SHORTEST, SHARE * (now - self._begun), RELIEF * (now - self._last))
        self._sleep(min(seconds, wanted))
        self._last = self._clock()


def main() -> None:
    """Runs the SuperNode."""
    # Flower resolves the link to its tables' versions and then parts the list of paths at spaces.
    database.ALEMBIC_DIR = Path(database.__file__).parent
    vars(start_client_internal)["time"] = SimpleNamespace(sleep=Waits().sleep)
    flower_supernode()


if __name__ == "__main__":
    main()
