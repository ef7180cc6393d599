"""Says for whom the start of a run waits, and until when."""

import datetime
import math
from collections.abc import Sequence

from trfmoe_core.counts import counted

TELL_S = 15.0
"""Seconds after which a run that waits for its nodes says so."""

LATE_S = 300.0
"""Seconds after which nodes that are not ready are late; half of the wait, if that is less."""


def awaited(owing: Sequence[str], nameless: int, absent: int, late: bool) -> str:
    """Returns in words for which nodes a run waits.

    Args:
        owing: Connected nodes that were asked who they are and have not answered, by the names of their keys.
        nameless: Number of those that have no key, so that nobody knows their names before they answer.
        absent: Number of nodes that are not connected.
        late: Whether they should be ready by now.
    """
    parts = []
    one = len(owing) + nameless == 1
    if owing or nameless:
        who = [*owing, *([counted(nameless, "connected node")] if nameless else [])]
        does = f"{'starts' if one else 'start'} or {'prepares its' if one else 'prepare their'} data"
        doubt = f"still {does}, or {'hangs' if one else 'hang'}: the node's log says which" if late else does
        parts.append(f"{', '.join(who)} ({doubt})")
    if absent > 0:
        verb = "is" if absent == 1 else "are"
        parts.append(f"{counted(absent, 'node')} that {verb} not connected{'' if late else ' yet'}")
    return " and ".join(parts) or "nodes that were refused and may be mended"


def unnamed(owing: Sequence[str], nameless: int) -> str:
    """Returns who has not said who it is: the names of keys, and how many nodes have no key; empty if nobody."""
    return ", ".join([*owing, *([f"{counted(nameless, 'node')} without a key"] if nameless else [])])


def until(left_s: float, now: datetime.datetime | None = None) -> str:
    """Returns a moment in local time and how far off it is, such as `until 14:35:10, in 0:59:45`.

    Args:
        left_s: Seconds until then.
        now: The time now; None: the clock's.
    """
    left = datetime.timedelta(seconds=math.ceil(left_s))
    return f"until {(now or datetime.datetime.now()) + left:%H:%M:%S}, in {left}"
