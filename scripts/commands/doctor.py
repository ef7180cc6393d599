"""`trfmoe doctor`: finds the usual troubles before they hurt, each with its remedy."""

import os
import shutil
import socket
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scripts.terminal.options import JsonOption, SetOption
from trfmoe_core.counts import counted

if TYPE_CHECKING:
    import psutil

    from scripts.terminal.findings import Finding
    from trfmoe_core.config import Recipe

LITTLE_BYTES, FULL_BYTES = 5 << 30, 500 << 20
FLOWER = ("flower-superlink", "flower-superexec", "flower-supernode", "flwr-simulation", "flwr-serverapp")


def doctor(
    target: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG|DIR]", help="A recipe, or a kit or one folder of it.")
    ] = None,
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Look for what usually goes wrong: versions, clock, ports, certificates, keys, disk, GPU, data, leftovers.

    Exit codes: 0 well; 10 versions, 11 clock, 12 port, 13 certificate, 14 registration, 15 disk, 16 GPU, 17 data,
    18 leftovers, 19 keys, 20 reach, 21 apps, 22 settings: of the first trouble in the list.
    """
    from scripts.terminal.findings import report
    from scripts.terminal.output import Output

    raise typer.Exit(report(examine(target, overrides), Output(as_json)))


def examine(target: Path | None, overrides: list[str]) -> "Iterator[Finding]":
    """Yields findings about this machine, and about a recipe or a kit when one is given.

    Raises:
        ConfigError: the recipe cannot be read, or the folder is no kit.
    """
    from scripts.deploy.kit.check import check_kit

    yield from versions()
    yield from leftovers()
    yield from proxies()
    if target is not None and target.is_dir():
        yield from disk([target])
        yield from node_ports(target)
        yield from check_kit(target)
    elif target is not None:
        yield from _recipe(target, overrides)
    else:
        yield from disk([Path.cwd()])


def versions() -> "Iterator[Finding]":
    """Yields findings about installed packages that are not what this release asks for."""
    import importlib.metadata

    from packaging.requirements import Requirement

    from scripts.terminal.findings import trouble, warning, well

    wrong = []
    for line in importlib.metadata.requires("trfmoe") or ():
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": "train"}):
            continue
        try:
            installed = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            wrong.append(f"{requirement.name} {installed}, and {requirement.specifier} is asked for")
    if wrong:
        yield trouble("versions", "; ".join(wrong), "make install, in a checkout of this release")
    else:
        yield well("versions", f"Python {sys.version.split()[0]} and all packages are what this release asks for")
    own, found = Path(sys.executable).parent, shutil.which("flower-supernode")
    if found and Path(found).resolve().parent != own.resolve():
        text = f"{found} comes first on the PATH, and belongs to another installation than {own}"
        yield warning("versions", text, f"put {own} first on the PATH; start.sh does with TRFMOE_VENV={own.parent}")


def leftovers() -> "Iterator[Finding]":
    """Yields findings about Flower's processes on this machine that no command of ours is minding."""
    import psutil

    from scripts.processes.guard import MARK
    from scripts.terminal.findings import warning, well

    left = []
    for process in psutil.process_iter():
        try:
            names = {Path(part).name for part in process.cmdline()[:3]}
            minded = MARK in process.environ() or "TRFMOE_PYTHON" in process.environ()
        except psutil.Error:
            continue
        if names & set(FLOWER) and not minded:
            left.append((process.pid, next(iter(names & set(FLOWER)))))
    for pid, name in left:
        text = f"{name} runs as process {pid}, started by no command of this project"
        yield warning("leftovers", text, f"kill {pid}, if nobody needs it: `flwr run` leaves its SuperLink running")
    alone = orphans()
    for process in alone:
        text = f"process {process.pid} was started by a Flower process that has ended"
        yield warning("leftovers", text, f"kill {process.pid}: nobody takes what it works on")
    if not left and not alone:
        yield well("leftovers", "no process of Flower's is left over")


def orphans() -> "list[psutil.Process]":
    """Returns processes that Flower told who their parent is (`--parent-pid`) and that have another one now."""
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            parent = words[words.index("--parent-pid") + 1] if "--parent-pid" in words[:-1] else ""
            if parent.isdecimal() and process.ppid() != int(parent) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def proxies() -> "Iterator[Finding]":
    """Yields findings about the proxies that the environment names."""
    from scripts.processes.proxies import REMEDY, dropped_variables, proxies_in_use
    from scripts.terminal.findings import warning, well

    for line in dropped_variables():
        yield warning("reach", line, REMEDY)
    for name, url in proxies_in_use().items():
        yield well(
            "reach", f"{name}={url}: for the hub and for coordinators elsewhere; loopback does not go through it"
        )


def disk(folders: "Iterable[Path]") -> "Iterator[Finding]":
    """Yields findings about the space and the permission to write in folders, or in what they will be made in."""
    from scripts.terminal.findings import trouble, warning, well

    for folder in dict.fromkeys(folders):
        place = next((path for path in (folder, *folder.absolute().parents) if path.is_dir()), Path("/"))
        free = shutil.disk_usage(place).free
        text = f"{folder}: {free / 1e9:.1f} GB free"
        if not os.access(place, os.W_OK):
            yield trouble("disk", f"{folder}: this account may not write there", "choose another folder")
        elif free < FULL_BYTES:
            yield trouble("disk", text, "free some: checkpoints, optimizer states and tokens go there")
        elif free < LITTLE_BYTES:
            yield warning("disk", text, "keep an eye on it")
        else:
            yield well("disk", text)


def node_ports(folder: Path) -> "Iterator[Finding]":
    """Yields findings about the loopback port that a node's SuperNode will want."""
    from scripts.deploy.kit.kit import CONNECTION_FILE
    from scripts.terminal.findings import trouble, well

    if not (folder / CONNECTION_FILE).is_file():
        return
    port = int(os.environ.get("TRFMOE_NODE_PORT", "9094"))
    holder = _holder(port)
    if holder is None:
        yield well("port", f"127.0.0.1:{port} is free for this node's SuperNode")
    elif "supernode" in holder:
        yield well("port", f"127.0.0.1:{port} is a SuperNode's; this node seems to run")
    else:
        text = f"127.0.0.1:{port} is taken by {holder}"
        yield trouble("port", text, "stop that, or start this node with TRFMOE_NODE_PORT=another")


def gpu(recipe: "Recipe") -> "Iterator[Finding]":
    """Yields findings about GPUs that a recipe wants and this machine does not show."""
    from scripts.run.resources import count_gpus
    from scripts.terminal.findings import trouble, well

    devices = {node.device or recipe.training.device for node in recipe.nodes} or {recipe.training.device}
    count = count_gpus()
    wanted = sorted(device for device in devices if device.startswith("cuda"))
    if wanted and count == 0:
        text = f"the recipe asks for {', '.join(wanted)}, and no GPU is visible"
        remedy = "look at nvidia-smi and CUDA_VISIBLE_DEVICES, or set training.device=cpu"
        yield trouble("gpu", text, remedy)
    else:
        yield well("gpu", f"{count} GPUs visible" if count else "no GPU is visible, and none is asked for by name")


def _recipe(path: Path, overrides: list[str]) -> "Iterator[Finding]":
    from clients.settings import cache_folder
    from scripts.deploy.kit.check import check_data
    from scripts.run.federated_run import resolve
    from scripts.run.preflight import find_recipe
    from scripts.terminal.findings import trouble, well
    from trfmoe_core.data.tokenizers import load_tokenizer
    from trfmoe_core.errors import DataError

    recipe = resolve(path, overrides, [])
    alone = bool(recipe.data.sources)
    together = f"{counted(recipe.federation_size, 'node')}, {counted(recipe.rounds.num_rounds, 'round')}"
    yield well("settings", f"{find_recipe(path)}: {'a run on one machine' if alone else together}")
    states = [Path(node.state_dir) for node in recipe.nodes if node.state_dir]
    yield from disk([Path(recipe.run_root), *states, *(cache_folder(node) for node in recipe.nodes)])
    yield from gpu(recipe)
    for tokenizer in dict.fromkeys([recipe.data.tokenizer, *(node.tokenizer for node in recipe.nodes)]):
        if tokenizer is not None:
            try:
                load_tokenizer(tokenizer)
            except DataError as error:
                yield trouble("settings", f"tokenizer {tokenizer}: {error}", "name a tokenizer that can be used")
    yield from check_data(recipe.data.sources, f"{path}: data.sources")
    yield from check_data(recipe.witness.data if recipe.witness else [], f"{path}: witness.data")
    for node in recipe.nodes:
        yield from check_data(node.data, f"{path}: node {node.name}: data")


def _holder(port: int) -> str | None:
    """Returns what holds a port of loopback, as far as this account may see; None when it is free."""
    import psutil

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            return None
        except OSError:
            pass
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f"process {connection.pid} ({' '.join(psutil.Process(connection.pid).cmdline()[:3])})"
    except psutil.Error:
        pass
    return "another process"
