"""Freed memory goes back to the system although something small lies behind it."""

import psutil
import pytest

from trfmoe_core import heap


def test_freed_memory_goes_back() -> None:
    if heap._malloc_trim() is None:
        pytest.skip("the C library has no malloc_trim")
    process = psutil.Process()
    # Below the size that the C library maps by itself, so all of it lies in the heap.
    parts = [bytearray(b"x" * 60_000) for _ in range(2000)]
    pins = parts[::10]
    full = process.memory_info().rss
    del parts
    heap.trim()
    assert full - process.memory_info().rss > 80e6
    assert len(pins) == 200


def test_without_it_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "_malloc_trim", lambda: None)
    heap.trim()
