"""How many cores a process may use, and that its threads sleep while they wait for each other."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.places import ROOT
from trfmoe_core.processors import resolve_threads, usable_cores, usable_processors

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def machine(tmp_path: Path, siblings: list[str], files: dict[str, str] | None = None) -> Path:
    """Returns the root of a machine whose processor i is in a core with the processors `siblings[i]`."""
    for number, group in enumerate(siblings):
        write(tmp_path / f"sys/devices/system/cpu/cpu{number}/topology/core_cpus_list", group)
    for name, text in (files or {}).items():
        write(tmp_path / name, text)
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")


@pytest.fixture
def four_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)


@pytest.mark.usefixtures("four_processors")
@pytest.mark.parametrize(
    ("siblings", "files", "cores"),
    [
        (["0", "1", "2", "3"], {}, 4),
        (["0,2", "1,3", "0,2", "1,3"], {}, 2),
        ([], {}, 4),
        (["0", "1", "2", "3"], {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "max 100000"}, 4),
        (["0", "1", "2", "3"], {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "150000 100000"}, 2),
        (["0", "1", "2", "3"], {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "20000 100000"}, 1),
        # A group may use no more than the group around it, and in a container only the mount's root is there.
        (
            ["0", "1", "2", "3"],
            {
                "proc/self/cgroup": "0::/all/mine",
                "sys/fs/cgroup/all/cpu.max": "100000 100000",
                "sys/fs/cgroup/all/mine/cpu.max": "300000 100000",
            },
            1,
        ),
        (["0", "1", "2", "3"], {"proc/self/cgroup": "0::/hosts/own", "sys/fs/cgroup/cpu.max": "300000 100000"}, 3),
        (
            ["0", "1", "2", "3"],
            {
                "proc/self/cgroup": "4:memory:/x\n3:cpu,cpuacct:/x",
                "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "200000",
                "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000",
            },
            2,
        ),
        (
            ["0", "1", "2", "3"],
            {
                "proc/self/cgroup": "3:cpu,cpuacct:/x",
                "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000",
            },
            4,
        ),
    ],
)
def test_usable_cores(tmp_path: Path, siblings: list[str], files: dict[str, str], cores: int) -> None:
    assert usable_cores(machine(tmp_path, siblings, files)) == cores


def test_only_processors_of_this_process_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2}, raising=False)
    assert usable_cores(machine(tmp_path, ["0,1", "0,1", "2,3", "2,3"])) == 2
    assert usable_cores(machine(tmp_path / "other", ["0,2", "1,3", "0,2", "1,3"])) == 1
    assert usable_processors() == 2


def test_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trfmoe_core.processors.usable_cores", lambda: 8)
    assert [resolve_threads("auto", processes) for processes in (1, 3, 8, 9)] == [8, 2, 1, 1]
    assert resolve_threads(5, 3) == 5


@pytest.mark.skipif(sys.platform != "linux", reason="the OpenMP of torch's packages for Linux tells its settings")
@pytest.mark.parametrize("module", ["clients.app", "clients.rank", "scripts.run.local.rank", "scripts.bench.model"])
def test_threads_wait_passively_whatever_is_imported_first(module: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in WAITING}
    told = subprocess.run(
        [sys.executable, "-c", f"import {module}"],
        cwd=ROOT,
        env={**environment, "OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in told
    assert "GOMP_SPINCOUNT = '2000'" in told


@pytest.mark.parametrize("name", WAITING)
def test_what_the_user_sets_stays(name: str) -> None:
    code = f"import os, trfmoe_core; print(*(os.environ.get(name) for name in {WAITING}))"
    environment = {key: value for key, value in os.environ.items() if key not in WAITING} | {name: "7"}
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert told.stdout.split() == ["7" if other == name else "None" for other in WAITING]
