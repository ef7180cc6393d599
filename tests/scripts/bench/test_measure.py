"""Memory that benchmarks measure, and the process of its own that they measure it in."""

import subprocess
import sys

import pytest

from scripts.bench import child
from scripts.bench.measure import Highest, anonymous_bytes, peak_mb
from tests.places import ROOT

MEGABYTE = 1 << 20


def test_memory_that_is_taken_is_seen() -> None:
    before = anonymous_bytes()
    with Highest(lambda: {"anonymous": anonymous_bytes()}, every_s=0.01) as highest:
        held = bytearray(b"x" * (64 * MEGABYTE))
    assert highest.values["anonymous"] >= before + len(held)
    assert peak_mb() * 10**6 >= len(held)


PROGRAM = """
from scripts.bench.measure import growth_mb
earlier = bytearray(b"x" * (128 << 20))
del earlier
print(growth_mb(lambda: bytearray(b"x" * (32 << 20))))
"""


def test_growth_is_that_of_the_work_alone() -> None:
    # In a process of its own: other tests of this one may have changed what the allocator keeps.
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "None" or 32 <= float(done.stdout) < 110


def test_the_highest_of_each_value_is_kept() -> None:
    looks = iter([{"a": 1, "b": 5}, {"a": 3}, {"a": 2, "b": 4}])
    seen: list[int] = []

    def look() -> dict[str, int]:
        seen.append(1)
        return next(looks, {})

    with Highest(look, every_s=0.001) as highest:
        while len(seen) < 3:
            pass
    assert highest.values == {"a": 3, "b": 5}


def test_a_child_has_the_environment_and_tells_its_result() -> None:
    assert child.result_of("os:getenv", {"TRFMOE_TEST_CHILD": "7"}, key="TRFMOE_TEST_CHILD") == "7"
    with pytest.raises(subprocess.CalledProcessError):
        child.result_of("os:getenv", wrong=1)
    assert child.run("trfmoe_core.config:load_recipe", path="x") != 0
