"""What Flower is started with: its own home, nothing from the network, no code of the caller's folder."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.run import simulation
from scripts.run.simulation import (
    PROGRAMS,
    app_folder,
    check_shared_memory,
    flower_environment,
    free_port,
    install_programs,
)
from trfmoe_core.errors import RunError


def test_the_environment_is_closed_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLWR_HOME", "/home/someone/.flwr")
    monkeypatch.setenv("PYTHONPATH", "/another/project")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setenv("NO_PROXY", "intranet")
    monkeypatch.delenv("no_proxy", raising=False)
    environment = flower_environment(tmp_path)
    assert environment["no_proxy"] == environment["NO_PROXY"] == "intranet,127.0.0.1,localhost,::1"
    assert environment["FLWR_HOME"] == str(tmp_path / "flwr")
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"
    assert environment["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert environment["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert environment["RAY_TMPDIR"] == str(tmp_path)
    assert "PYTHONPATH" not in environment
    assert "RAY_ADDRESS" not in environment


def test_a_port_is_free() -> None:
    assert 1024 <= free_port() < 65536


def test_programs_run_under_a_python_without_a_space_in_its_path(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    spaced = tmp_path_factory.mktemp("with space") / "venv"
    (spaced / "bin").mkdir(parents=True)
    (spaced / "bin" / "python").symlink_to(sys.executable)
    for name in PROGRAMS:
        (spaced / "bin" / name).write_text("import sys\nprint(sys.orig_argv[0], *sys.argv[1:], sep='|')\n")
    monkeypatch.setattr(sys, "executable", str(spaced / "bin" / "python"))
    install_programs(tmp_path)
    done = subprocess.run([tmp_path / "bin" / "flwr", "a b", "c"], capture_output=True, text=True, check=True)
    assert done.stdout == f"{tmp_path}/env/bin/python|a b|c\n"


def test_missing_programs_name_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    with pytest.raises(RunError, match="make install"):
        install_programs(tmp_path)


def test_the_app_folder_is_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (app_folder() / "server" / "app.py").is_file()
    monkeypatch.setattr(simulation, "APP_FOLDER", tmp_path)
    with pytest.raises(RunError, match=r"pyproject\.toml"):
        app_folder()


def test_no_shared_memory_is_told_before_ray_is_started(tmp_path: Path) -> None:
    check_shared_memory(tmp_path)
    for folder in (tmp_path / "missing", Path("/proc")):
        with pytest.raises(RunError, match="trfmoe deploy local"):
            check_shared_memory(folder)
