"""The boundary around each file: whatever goes wrong in a reader becomes that file's status, and ends nothing else."""

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trfmoe_core.data.documents.encoding import NotTextError
from trfmoe_core.data.documents.opening import ChangedError
from trfmoe_core.data.documents.records import SourceFile
from trfmoe_core.data.documents.reports import first_line, printable
from trfmoe_core.data.formats.base import ReadLog
from trfmoe_core.errors import ConfigError

log = logging.getLogger("trfmoe.data")


@contextmanager
def boundary(file: SourceFile, report: ReadLog) -> Iterator[None]:
    """Turns every exception inside into the status of `file`; an unforeseen one is also logged with its place.

    Raises:
        ConfigError: a format does not do what it says of itself, which is no fault of the file.
    """
    try:
        yield
    except ConfigError:
        raise
    except ChangedError:
        report.fail("changed", "it changed since it was examined; start again")
    except NotTextError as error:
        report.fail("unsupported", str(error))
    except OSError as error:
        report.fail("unreadable", error.strerror or str(error))
    except MemoryError:
        report.fail("too-large", "it needs more memory than there is")
    except Exception as error:
        what = described(error)
        log.warning("%s: %s", printable(file.path), what)
        log.debug("the whole traceback", exc_info=True)
        report.fail("broken", f"its reader failed: {what}")


def described(error: BaseException) -> str:
    """Returns type, place and message of an unforeseen exception."""
    return f"{type(error).__name__} at {_place(error)}: {first_line(error)}"


def _place(error: BaseException) -> str:
    """Returns file and line of the innermost frame of this project, or of all if there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "trfmoe_core" in Path(frame.filename).parts and frame.filename != __file__]
    frame = (own or frames)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"
