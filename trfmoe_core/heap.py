"""Freed memory that goes back to the system at once."""

import ctypes
from functools import cache


def trim() -> None:
    """Gives freed memory back: glibc keeps what large and small objects shared, a reply's worth for every few replies.

    Without glibc nothing happens.
    """
    function = _malloc_trim()
    if function is not None:
        function(0)


@cache
def _malloc_trim() -> "ctypes._NamedFuncPointer | None":
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, TypeError, AttributeError):
        return None
