"""Says for whom the start of a run waits, and until when."""

import datetime
import math
from collections.abc import Sequence

from trfmoe_core.counts import counted

TELL_S = 15.0
"""Seconds after which a run that waits for its nodes says so."""


def awaited(owing: Sequence[str], nameless: int, absent: int) -> str:
    """Returns in words for which nodes a run waits.

    Args:
        owing: Connected nodes that were asked who they are and have not answered, by the names of their keys.
        nameless: Number of those that have no key, so that nobody knows their names before they answer.
        absent: Number of nodes that are not connected.
    """
    parts = []
    if owing:
        verb = "prepares its" if len(owing) == 1 else "prepare their"
        parts.append(f"{', '.join(owing)} (connected; {verb} data, or hangs: the node's log says which)")
    if nameless:
        one = nameless == 1
        parts.append(
            f"{counted(nameless, 'node')} that {'is' if one else 'are'} connected and {'has' if one else 'have'} not "
            f"said {'its' if one else 'their'} name yet (starting, preparing data, or hanging: the node's log says "
            "which)"
        )
    if absent > 0:
        parts.append(f"{absent} that {'is' if absent == 1 else 'are'} not connected")
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
