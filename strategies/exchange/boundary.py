"""The one boundary around the handling of a message: whatever goes wrong inside is blamed on the node that sent it.

A message passes through code of this project, Flower, protobuf, pydantic and torch before it counts. Nobody can list
the exceptions that a hostile message may raise there. So the boundary takes all of them, except trouble of the
coordinator's own.
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
"""Longest reason, in characters, that journal and console show."""

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""Errors of the coordinator's own disk and limits. Messages are bounded, so no message can cause them."""

_TRANSPORT = (RunNotRunningException, TransportError, ConnectionError, TimeoutError)
"""The SuperLink cannot be reached (Flower has already retried), or the run was stopped."""


@contextmanager
def boundary() -> Iterator[None]:
    """Turns everything that one message can cause into `WireError`, whose text is the reason for the journal.

    Errors of the coordinator's own disk and memory, a lost SuperLink and an interruption pass through.

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
                f"{error.filename or 'the run folder'}: {error.strerror or error}; mend that and go on with --resume "
                "after the last committed round"
            ) from error
        raise _unexpected(error) from None
    except Exception as error:  # noqa: BLE001  Whatever a message raises belongs to the node that sent it.
        raise _unexpected(error) from None


def plain(text: str, longest: int = LONGEST_REASON) -> str:
    """Returns a text in one line without control characters, cut to `longest` characters."""
    # Cleaning may remove characters, so the text is cut before (for speed) and after (for length).
    seen = "".join(" " if mark.isspace() else mark for mark in text[: 4 * longest] if _shown(mark))
    line = " ".join(seen.split())
    return line if len(line) <= longest else line[: longest - 3] + "..."


def _shown(mark: str) -> bool:
    return mark.isspace() or unicodedata.category(mark) not in ("Cc", "Cf", "Cs", "Co", "Cn")


def _unexpected(error: Exception) -> WireError:
    reason = plain(f"the message cannot be handled: {type(error).__name__}: {error}")
    # The error's text may hold what the node sent, so only the places in the code are logged.
    log(WARNING, "%s\n%s", reason, "".join(traceback.format_tb(error.__traceback__)[-4:]))
    return WireError(reason)
