"""Flower's `flower-supernode`, which asks for its next message sooner and gives an app longer to start.

Flower's own waits three seconds between two questions, so a round begins up to three seconds late on some node, and
half a second between two looks for the answer of the app. Here a wait takes a hundredth of the time that was waited
already, within bounds: short rounds lose little, and in long ones a SuperLink is asked no more often than by Flower.

A program that Flower starts for a message must report within 30 seconds, or Flower starts another one for the same
message and no longer listens to the first. On a machine so busy that a start takes longer, programs pile up, each slows
the others, and no message is ever answered. Here a program has longer.

Where another version of Flower has nothing of this to replace, its SuperNode runs as it is and this is said in its log.
"""

import importlib
import sys
import time
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import cast

LOOPS = "flwr.supernode.start_client_internal"
DATABASE = "flwr.supercore.state.alembic.utils"
STATE = "flwr.supercore.corestate.in_memory_corestate"
SHARE = 0.01
"""Of the time that was waited already."""
SHORTEST = 6
"""A wait is at least Flower's own, divided by this."""
RELIEF = 10
"""A wait is at least so many times as long as what was done since the last one: a slow SuperLink is asked rarely."""
INTERVAL = "HEARTBEAT_DEFAULT_INTERVAL"
"""Flower's name for the 30 seconds, which it uses for other waits too."""
START_S = 120.0
"""How long a program has from its start to its first report. One that ends before is started again after so long."""


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


def hasten(module: str = LOOPS) -> bool:
    """Makes Flower's loops wait by `Waits`.

    Args:
        module: The one that the loops are in.

    Returns:
        False if they are not in there or wait by something else: then they wait as Flower has them wait.
    """
    try:
        loops = importlib.import_module(module)
    except ImportError:
        return False
    if getattr(loops, "time", None) is not time:
        return False
    vars(loops)["time"] = SimpleNamespace(**{**vars(time), "sleep": Waits().sleep})
    return True


def await_start(module: str = STATE) -> bool:
    """Gives a program that answers a message `START_S` until its first report.

    Args:
        module: The one that keeps a node's messages and who answers them.

    Returns:
        False if it does not keep them as known here: then Flower's own 30 seconds hold.
    """
    try:
        state = getattr(importlib.import_module(module), "InMemoryCoreState", None)
    except ImportError:
        return False
    claim = getattr(state, "claim_task", None)
    if not isinstance(claim, FunctionType) or INTERVAL not in claim.__code__.co_names:
        return False
    names = {**claim.__globals__, INTERVAL: START_S}
    setattr(state, "claim_task", FunctionType(claim.__code__, names, claim.__name__))  # noqa: B010
    return True


def allow_spaces(module: str = DATABASE) -> bool:
    """Lets Flower's database lie below a path with a space.

    Flower resolves the link to its tables' versions and then parts the list of paths at spaces.

    Args:
        module: The one that names the folder of these versions.

    Returns:
        False if it names none.
    """
    try:
        database = importlib.import_module(module)
    except ImportError:
        return False
    if not hasattr(database, "ALEMBIC_DIR") or database.__file__ is None:
        return False
    vars(database)["ALEMBIC_DIR"] = Path(database.__file__).parent
    return True


def flowers_own() -> Callable[[], int | None]:
    """Returns Flower's program, by the name that it is installed under.

    Raises:
        LookupError: Flower is not installed.
    """
    for program in entry_points(group="console_scripts", name="flower-supernode"):
        return cast(Callable[[], int | None], program.load())
    raise LookupError("flower-supernode is not installed beside this Python")


def main() -> None:
    """Runs the SuperNode."""
    try:
        program = flowers_own()
    except LookupError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(3)
    if not hasten():
        say("waits between two questions as long as Flower has it wait; rounds begin up to some seconds later")
    if not await_start():
        say("starts a program again that takes more than 30 seconds to start; on a busy machine that may never end")
    if not allow_spaces():
        say("needs a path without spaces")
    sys.exit(program())


def say(what: str) -> None:
    """Writes what another version of Flower does not allow here."""
    sys.stderr.write(f"trfmoe: this version of Flower is not the one known here, so the SuperNode {what}\n")


if __name__ == "__main__":
    main()
