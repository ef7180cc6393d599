"""Turns an error on a node into the refusal code that the coordinator gets."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from strategies.exchange.refusals import Code, Refusal, kind_of
from trfmoe_core.errors import ConfigError, DataError, PathError, RunError, RunFolderError, TRFMoEError, WireError

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_CODES: dict[type[TRFMoEError], Code] = {
    ConfigError: "settings",
    PathError: "name",
    DataError: "data",
    RunFolderError: "state",
    WireError: "request",
    RunError: "ranks",
}


class RefusedError(TRFMoEError):
    """A request that this node does not carry out.

    Args:
        refusal: What the coordinator is told.
        text: What this node's log says.
    """

    def __init__(self, refusal: Refusal, text: str) -> None:
        super().__init__(text)
        self.refusal = refusal


@contextmanager
def refused_as(code: Code, **numbers: Any) -> Iterator[None]:
    """Gives every error inside the `with` block this code.

    An error that has its own code keeps it, and so does a full disk.

    Args:
        code: Why the node refuses.
        numbers: Numbers that the coordinator is told with it.

    Raises:
        RefusedError: Anything was raised inside the block.
    """
    try:
        yield
    except TRFMoEError as error:
        if own := _own(error):
            raise own from None
        refusal = Refusal(code="disk") if _disk_is_full(error) else Refusal(code=code, **numbers)
        raise RefusedError(refusal, str(error)) from error


def refusal_of(error: Exception) -> Refusal:
    """Returns what the coordinator is told of an error: never its text."""
    if own := _own(error):
        return own.refusal
    if _disk_is_full(error):
        return Refusal(code="disk")
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error):
        return Refusal(code="memory")
    # A class of the program that stands before the app on a node: it cannot be imported from here.
    if type(error).__name__ == "TerminatedError":
        return Refusal(code="stopped")
    for kind, code in _CODES.items():
        if isinstance(error, kind):
            return Refusal(code=code)
    return Refusal(code="internal", kind=kind_of(error))


def _own(error: BaseException | None) -> RefusedError | None:
    """Returns the refusal that the error is or comes from: readers of data wrap whatever stops them."""
    while error is not None and not isinstance(error, RefusedError):
        error = error.__cause__
    return error


def _disk_is_full(error: BaseException) -> bool:
    """Returns True if the error, or one that it comes from, is a full disk or quota."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _NO_SPACE:
            return True
        # What the library that writes tensors says, which is no OSError.
        if "os error 28" in str(seen) or "os error 122" in str(seen):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
