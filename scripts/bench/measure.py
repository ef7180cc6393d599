"""What benchmarks share: memory of a process, and how results are shown."""

import resource
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import psutil

from scripts.terminal.output import Output

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_mb() -> int:
    """Returns the most memory that this process ever had, in MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 10**6


def growth_mb(work: Callable[[], object]) -> float | None:
    """Returns by how many MB this process grows at most while it works; None where the system cannot tell."""
    if not _CLEAR.exists():
        return None
    before = _status_kb("VmRSS")
    _CLEAR.write_text("5")  # the peak counts from here
    work()
    return round((_status_kb("VmHWM") - before) / 1000, 1)


def anonymous_bytes() -> int:
    """Returns the memory of this process that no file backs."""
    memory = psutil.Process().memory_info()
    return int(memory.rss - memory.shared)


class Highest(threading.Thread):
    """Context manager that looks at some values again and again, and keeps the highest of each in `values`.

    Args:
        look: Returns the values of now by name.
        every_s: Seconds between two looks.
    """

    def __init__(self, look: Callable[[], Mapping[str, int]], every_s: float) -> None:
        super().__init__(daemon=True)
        self.values: dict[str, int] = {}
        self._look, self._every_s = look, every_s
        self._done = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()

    def run(self) -> None:
        """Looks until the context ends, at least once."""
        over = False
        while not over:
            for name, value in self._look().items():
                self.values[name] = max(value, self.values.get(name, value))
            over = self._done.wait(self._every_s)


def show(result: dict[str, Any], as_json: bool) -> None:
    """Writes a result: one value a line for people, or one JSON object for programs."""
    output = Output(as_json)
    for name, value in result.items():
        output.line(f"{name:34}{value}")
    output.result({"outcome": "completed", **result, "exit_code": 0})


def _status_kb(key: str) -> int:
    lines = _STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))
