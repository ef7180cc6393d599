"""Imports run one way: between packages, between the rooms of a package, and between modules."""

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.fresh import failures
from tests.places import ROOT

MAY_IMPORT = {
    "trfmoe_core": {"trfmoe_core"},
    "strategies": {"trfmoe_core", "strategies"},
    "clients": {"trfmoe_core", "strategies", "clients"},
    "server": {"trfmoe_core", "strategies", "server"},
    "scripts": {"trfmoe_core", "strategies", "clients", "server", "scripts", "configs"},
}
OURS = {*MAY_IMPORT, "tests", "configs"}
# The rooms of a package: a room imports itself and the rooms above it. "." stands for the files beside the rooms.
# A folder inside a room that is not listed itself belongs to that room.
ROOMS = {
    "strategies": ["placement", "exchange", "voting", "outer", "witness", "membership", "round", "."],
    "server": ["run_folder", "report", "sinks", "."],
    "scripts": [
        "packaging",
        "terminal",
        "processes",
        "run",
        "evaluation",
        "continuing",
        "planning",
        "deploy",
        "process_drill",
        "experiments",
        "experiments.studies",
        "bench",
        "commands",
        ".",
    ],
    "trfmoe_core": [
        ".",
        "config",
        "data.documents",
        "data.formats",
        "data.pdf",
        "data.markup",
        "data.extraction",
        "data.hub",
        "data.sources",
        "data.tokenizers",
        "data.batches",
        "data.prepare",
        "data.sample",
        "data",
        "model",
        "training",
    ],
}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def modules() -> dict[str, Path]:
    return {module_name(path): path for package in MAY_IMPORT for path in sorted((ROOT / package).rglob("*.py"))}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports_of(nodes: list[ast.AST]) -> set[str]:
    """The dotted names of what import statements import, as modules where they are some of ours."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            names |= {whole if (whole := f"{module}.{alias.name}") in modules() else module for alias in node.names}
    return names


def imported(path: Path) -> set[str]:
    """The packages that a file imports anywhere."""
    return {name.split(".")[0] or "relative" for name in imports_of(list(ast.walk(tree(path))))}


def imported_on_load(path: Path) -> set[str]:
    """Our modules that are imported while a file is loaded: not inside functions, not for the type checker."""
    nodes: list[ast.AST] = [tree(path)]
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            nodes += node.orelse
            continue
        nodes += ast.iter_child_nodes(node)
    return imports_of(nodes) & modules().keys()


def parents(module: str) -> set[str]:
    parts = module.split(".")
    return {".".join(parts[:size]) for size in range(1, len(parts))}


def room(module: str) -> tuple[str, int]:
    """The package of a module, and the place of its room in the list."""
    package = module.split(".")[0]
    folder = module_name(modules()[module].parent / "__init__.py").removeprefix(package).removeprefix(".") or "."
    while folder not in ROOMS[package]:
        assert "." in folder.strip("."), f"{module}: name its folder in ROOMS of {Path(__file__).name}"
        folder = folder.rpartition(".")[0]
    return package, ROOMS[package].index(folder)


def test_packages_import_one_way() -> None:
    assert len(modules()) > 100
    for path in modules().values():
        wrong = imported(path) & (OURS | {"relative"}) - MAY_IMPORT[path.relative_to(ROOT).parts[0]]
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


@pytest.mark.parametrize("package", ROOMS)
def test_rooms_import_one_way(package: str) -> None:
    for module, path in modules().items():
        if module.split(".")[0] == package:
            for other in imports_of(list(ast.walk(tree(path)))) & modules().keys():
                if other.split(".")[0] == package:
                    assert room(other) <= room(module), f"{module} imports {other} of a later room"


def test_no_modules_import_each_other_while_they_load() -> None:
    """Python loads the parent packages of a module first, so they count as imports of whoever is outside of them."""
    graph = {}
    for module, path in modules().items():
        found = imported_on_load(path)
        found |= {parent for other in found for parent in parents(other)}
        graph[module] = found - parents(module) - {module} | (imported_on_load(path) & parents(module))
    try:
        assert len(list(TopologicalSorter(graph).static_order())) >= len(modules())
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


@pytest.mark.parametrize("which", ["packages", pytest.param("modules", marks=pytest.mark.slow)])
def test_everything_can_be_imported_first(which: str) -> None:
    names = [
        name
        for name, path in modules().items()
        if path.name != "__main__.py" and (which == "modules" or path.name == "__init__.py")
    ]
    failed, errors = failures({name: f"import {name}" for name in names}, ROOT)
    assert not failed, errors


def test_the_core_knows_no_network() -> None:
    for path in (ROOT / "trfmoe_core").rglob("*.py"):
        assert not imported(path) & {"flwr", "wandb", "grpc", "requests", "httpx"}, path


def test_nothing_is_unpickled_or_executed() -> None:
    for path in modules().values():
        assert not imported(path) & {"pickle", "marshal", "dill", "cloudpickle", "shelve"}, path
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec"), path
