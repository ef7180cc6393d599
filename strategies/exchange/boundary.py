"""The one boundary around the handling of a message: what goes wrong inside is the fault of the node that sent it.

A message is pulled, inflated, read, decoded, checked and kept by many lines of this project's, Flower's, protobuf's,
pydantic's and torch's. Which exceptions a hostile message can raise there cannot be listed, so all are taken, but for
the coordinator's own trouble.
"""

import errno
import traceback
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from logging import WARNING

from flwr.common.logger import log
from flwr.supercore.run import RunNotRunningException
from httpx import TransportError

from trfmoe_core.errors import RunFolderError, WireError

LONGEST_REASON = 300
"""Characters of a reason that a reader of the journal or the console gets to see."""

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""Errors of the coordinator's disk or of its limits; messages are bounded, so none of them can bring these about."""

_TRANSPORT = (RunNotRunningException, TransportError, ConnectionError, TimeoutError)
"""The way to the SuperLink is lost for good (Flower has tried again by itself), or the run was stopped."""


@contextmanager
def boundary() -> Iterator[None]:
    """Turns everything that one message can cause into `WireError`, whose text is the reason for the journal.

    What passes through: the coordinator's own disk and memory, a lost SuperLink, an interruption.

    Raises:
        WireError: the message is to be dropped; nothing of it may have been applied before.
        RunFolderError: the coordinator's own disk failed.
    """
    try:
        yield
    except WireError as error:
        raise WireError(plain(str(error))) from None
    except (RunFolderError, MemoryError, *_TRANSPORT):
        raise
    except OSError as error:
        if error.errno in _DISK:
            raise RunFolderError(
                f"{error.filename or 'the run folder'}: {error.strerror or error}; mend that and go on with --resume, "
                "the last round is safe"
            ) from error
        raise _unexpected(error) from None
    except Exception as error:  # noqa: BLE001  Whatever a message raises belongs to the node that sent it.
        raise _unexpected(error) from None


def plain(text: str, longest: int = LONGEST_REASON) -> str:
    """Returns a text in one line without control characters, cut to `longest` characters."""
    # Cut before and after: one character in may be one out, or none.
    seen = "".join(" " if mark.isspace() else mark for mark in text[: 4 * longest] if _shown(mark))
    line = " ".join(seen.split())
    return line if len(line) <= longest else line[: longest - 3] + "..."


def _shown(mark: str) -> bool:
    return mark.isspace() or unicodedata.category(mark) not in ("Cc", "Cf", "Cs", "Co", "Cn")


def _unexpected(error: Exception) -> WireError:
    reason = plain(f"the message cannot be handled: {type(error).__name__}: {error}")
    # The text of the error may hold what the node sent, so only the lines of code are logged as they are.
    log(WARNING, "%s\n%s", reason, "".join(traceback.format_tb(error.__traceback__)[-4:]))
    return WireError(reason)
