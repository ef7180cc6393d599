"""Freed memory: kept for the next step while training, returned to the system between rounds."""

import subprocess
import sys

import psutil
import pytest

from trfmoe_core import malloc as heap

pytestmark = pytest.mark.skipif(heap._glibc() is None, reason="the C library is not glibc")

SCRIPT = """
import sys
import psutil, torch
from trfmoe_core import malloc as heap
from trfmoe_core.config import TrainingConfig
from trfmoe_core.training.device import prepare_process

if sys.argv[1] == "training":
    prepare_process(TrainingConfig())
process = psutil.Process()
torch.ones(8).sum()
before = process.memory_info().rss
tensors = [torch.ones(6 << 20) for _ in range(8)]
print(process.memory_info().rss - before)
del tensors
print(process.memory_info().rss - before)
heap.trim()
print(process.memory_info().rss - before)
"""
BYTES = 8 * 4 * (6 << 20)


def memory_of(mode: str) -> list[int]:
    """Returns by how much a process has grown with large tensors, after freeing them, and after `trim`."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, mode], capture_output=True, text=True, check=True)
    return [int(line) for line in done.stdout.split()]


def test_freed_tensors_stay_for_the_next_step_until_the_heap_is_trimmed() -> None:
    full, freed, trimmed = memory_of("training")
    assert min(full, freed) > 0.9 * BYTES and trimmed < 0.2 * BYTES
    full, freed, _ = memory_of("default")
    assert full > 0.9 * BYTES and freed < 0.2 * BYTES


def test_freed_memory_goes_back_although_blocks_in_use_lie_behind_it() -> None:
    process = psutil.Process()
    # Below the size that the C library maps by itself, so all of it lies in the heap.
    parts = [bytearray(b"x" * 60_000) for _ in range(2000)]
    pins = parts[::10]
    full = process.memory_info().rss
    del parts
    heap.trim()
    assert full - process.memory_info().rss > 80e6
    assert len(pins) == 200
