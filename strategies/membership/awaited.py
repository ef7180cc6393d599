"""Says for whom the start of a run waits, and until when."""

import datetime
import math
from collections.abc import Sequence

TELL_S = 15.0
"""Seconds after which a run that waits for its nodes says so."""


def awaited(owing: Sequence[str], absent: int) -> str:
    """Returns in words for which nodes a run waits.

    Args:
        owing: Connected nodes that were asked who they are and have not answered.
        absent: Number of nodes that are not connected.
    """
    parts = []
    if owing:
        verb = "prepares its" if len(owing) == 1 else "prepare their"
        parts.append(f"{', '.join(owing)} (connected; {verb} data, or hangs: the node's log says which)")
    if absent > 0:
        parts.append(f"{absent} that {'is' if absent == 1 else 'are'} not connected")
    return " and ".join(parts) or "nodes that were refused and may be mended"


def until(left_s: float, now: datetime.datetime | None = None) -> str:
    """Returns a moment in local time and how far off it is, such as `until 14:35:10, in 0:59:45`.

    Args:
        left_s: Seconds until then.
        now: The time now; None: the clock's.
    """
    left = datetime.timedelta(seconds=math.ceil(left_s))
    return f"until {(now or datetime.datetime.now()) + left:%H:%M:%S}, in {left}"
