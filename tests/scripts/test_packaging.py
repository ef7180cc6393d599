"""A checkout installs in place; a wheel is refused before anything is downloaded or built."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.places import ROOT

CALL = """import importlib, sys
sys.path.insert(0, sys.argv[1])
backend = importlib.import_module(sys.argv[2])
getattr(backend, sys.argv[3])(*sys.argv[4:])
"""


def call_backend(hook: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Calls a hook of pyproject.toml's backend as a frontend does: in a process of its own, in the project's folder."""
    system = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]
    place = str(ROOT / system["backend-path"][0])
    command = [sys.executable, "-c", CALL, place, system["build-backend"], hook, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "hook",
    [
        "get_requires_for_build_wheel",
        pytest.param("prepare_metadata_for_build_wheel", marks=pytest.mark.slow),
        pytest.param("build_wheel", marks=pytest.mark.slow),
        pytest.param("build_sdist", marks=pytest.mark.slow),
    ],
)
def test_a_wheel_is_refused_with_the_reason_and_the_remedy(hook: str, tmp_path: Path) -> None:
    done = call_backend(hook, *([] if hook.startswith("get") else [str(tmp_path)]))
    assert done.returncode == 1
    assert done.stderr.startswith("error: trfmoe is installed from a checkout")
    assert "make install" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_pip_shows_the_reason_from_an_empty_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", str(ROOT)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "error: trfmoe is installed from a checkout" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not list(tmp_path.rglob("*.whl"))


@pytest.mark.slow
def test_a_checkout_is_installed_in_place(tmp_path: Path) -> None:
    done = call_backend("build_editable", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.iterdir()
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.endswith(".pth") for name in names)
    assert not any(name.startswith(("server/", "scripts/")) for name in names)
