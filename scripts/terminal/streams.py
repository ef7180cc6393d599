"""Standard output and error that are closed, are pipes without a reader, or have an encoding other than UTF-8."""

import io
import os
import select
import sys

READER_GONE = 141
"""Exit code when nobody reads standard output any more: what a shell says of a program that SIGPIPE ended."""

_copies: list[int] = []


def open_streams() -> None:
    """Opens what of the three standard streams is closed to nowhere, and replaces what the encoding does not have.

    Without that, the next file that is opened would take the number of standard output, and every line that a child
    process writes would go into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # The numbers below are taken, so this one is the lowest that is free.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if number == 0 else "w", encoding="utf-8"))  # noqa: SIM115, PTH123
    while _copies:
        os.close(_copies.pop())
    _copies.extend(os.dup(number) for number in (1, 2))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def reader_gone() -> bool:
    """Returns True if standard output or error was a pipe when the command began, and has no reader now.

    It asks copies: click and rich lead the streams elsewhere when a write fails, and exit with 1.
    """
    poll = select.poll()
    for copy in _copies:
        poll.register(copy, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))


def end_streams(code: int) -> int:
    """Flushes the streams and returns the exit code: `code`, unless standard output cannot be written."""
    if error := write_error():
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())  # so that Python's own last flush does not fail
        os.close(nowhere)
        if isinstance(error, BrokenPipeError):
            return code or READER_GONE
        sys.stderr.write(f"error: standard output: {error.strerror or error}; lead it to where there is room\n")
        return code or 1
    return code


def write_error() -> OSError | None:
    """Flushes standard output. Returns why that is impossible, or None."""
    try:
        sys.stdout.flush()
    except OSError as error:
        return error
    return None
