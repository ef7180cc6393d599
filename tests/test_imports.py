"""Imports run one way: scripts, server, clients -> strategies -> trfmoe_core."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "trfmoe_core": {"trfmoe_core"},
    "strategies": {"trfmoe_core", "strategies"},
    "clients": {"trfmoe_core", "strategies", "clients"},
    "server": {"trfmoe_core", "strategies", "server"},
    "scripts": {"trfmoe_core", "strategies", "clients", "server", "scripts", "configs"},
}
OURS = {*MAY_IMPORT, "tests", "configs"}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(("." * node.level + (node.module or "")).split(".")[0] or "relative")
    return names


def test_imports_run_one_way() -> None:
    seen = 0
    for package, allowed in MAY_IMPORT.items():
        for path in (ROOT / package).rglob("*.py"):
            seen += 1
            wrong = imported(path) & (OURS | {"relative"}) - allowed
            assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"
    assert seen > 30


def test_the_core_knows_no_network() -> None:
    for path in (ROOT / "trfmoe_core").rglob("*.py"):
        assert not imported(path) & {"flwr", "wandb", "grpc", "requests", "httpx"}, path


def test_nothing_is_unpickled_or_executed() -> None:
    for package in MAY_IMPORT:
        for path in (ROOT / package).rglob("*.py"):
            assert not imported(path) & {"pickle", "marshal", "dill", "cloudpickle", "shelve"}, path
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    assert node.func.id not in ("eval", "exec"), path


ROOMS_WITHOUT_CIRCLES = ("trfmoe_core/*.py", "trfmoe_core/model/**/*.py", "trfmoe_core/training/*.py")
IMPORT_EACH = """
import importlib, os, sys
import pydantic, safetensors.torch, torch, torch.distributed.launcher.api

for name in sys.argv[1:]:
    child = os.fork()
    if not child:
        try:
            importlib.import_module(name)
        except BaseException as error:
            print(f"{name}: {error}", flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


def test_every_module_can_be_the_first_that_is_imported() -> None:
    paths = {path for pattern in ROOMS_WITHOUT_CIRCLES for path in ROOT.glob(pattern)}
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in sorted(paths)]
    assert len(names) > 30
    command = [sys.executable, "-c", IMPORT_EACH, *names]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout == ""
