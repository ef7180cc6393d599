"""How many processor cores this process may use, and how the threads of a training process wait for each other."""

import os
from math import ceil
from pathlib import Path, PurePosixPath
from typing import Literal

Threads = int | Literal["auto"]

_WAITING = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "2000", "KMP_BLOCKTIME": "0"}
"""For every OpenMP; `GOMP_SPINCOUNT`, of GNU's, goes before the policy. Measured on an AMD EPYC with two threads: on an
idle machine a training step at width 128 gained 1.33 instead of 1.12 from the second thread, and beside a busy process
it was 1.4 times as fast as with sleeping alone. Spinning ten times as long gained 1.39, and was slower beside one."""


def wait_passively() -> None:
    """Makes threads that wait for each other soon sleep instead of spin, in this process and in those that it starts.

    OpenMP reads the variables when it is loaded, which importing torch does, so this must come first. By default a
    thread spins for milliseconds. Beside one other busy process two spinning threads train several times slower than
    one thread, because each spins while the other is not running. If the user has set a variable, none is set.
    """
    if not any(name in os.environ for name in _WAITING):
        os.environ.update(_WAITING)


def usable_processors() -> int:
    """Returns the number of logical processors on which this process may run."""
    return len(_processors())


def usable_cores(system: Path = Path("/")) -> int:
    """Returns the number of physical cores that this process may use: of its processors, within its cgroups' quota.

    Two logical processors of one core count once, because they share its units for products. Where the system does not
    say which do, every processor counts as a core.

    Args:
        system: The root of the file systems `/sys` and `/proc`.
    """
    cores = {_core(system, number) for number in _processors()}
    quota = _quota(system)
    return max(1, len(cores) if quota is None else min(len(cores), ceil(quota)))


def resolve_threads(setting: Threads, processes: int = 1) -> int:
    """Returns the threads of one training process; `auto` shares out the cores evenly.

    Args:
        setting: `training.threads`, or the node's own.
        processes: That train at once on this machine.
    """
    return max(1, usable_cores() // processes) if setting == "auto" else setting


def _processors() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _core(system: Path, number: int) -> str:
    topology = system / f"sys/devices/system/cpu/cpu{number}/topology"
    for name in ("core_cpus_list", "thread_siblings_list"):
        if (topology / name).is_file():
            return (topology / name).read_text(encoding="ascii").strip()
    return str(number)


def _quota(system: Path) -> float | None:
    """Returns the cores' worth of time that this process's control groups grant; None if they grant all."""
    listed = system / "proc/self/cgroup"
    if not listed.is_file():
        return None
    quotas = []
    for line in listed.read_text(encoding="utf-8", errors="replace").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = system / "sys/fs/cgroup" / ("cpu" if controllers else "")
        # In a container the group's path may be the host's, and only the root of the mount is there.
        place = PurePosixPath(group.lstrip("/"))
        for part in (place, *place.parents):
            found = _quota_of(mount / part)
            quotas += [] if found is None else [found]
    return min(quotas, default=None)


def _quota_of(group: Path) -> float | None:
    if (group / "cpu.max").is_file():
        quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
    elif (group / "cpu.cfs_quota_us").is_file() and (group / "cpu.cfs_period_us").is_file():
        quota, period = ((group / f"cpu.cfs_{name}_us").read_text(encoding="ascii") for name in ("quota", "period"))
    else:
        return None
    return None if quota == "max" or int(quota) < 0 else int(quota) / int(period)
