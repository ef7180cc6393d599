"""`trfmoe deploy add-node | revoke | rotate | upgrade | refresh`: how a kit changes, for its operator."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from scripts.terminal.options import JsonOption

KitArgument = Annotated[Path, typer.Argument(metavar="DIR", help="The kit, or the coordinator's folder of it.")]


def add_node(
    directory: KitArgument,
    name: Annotated[str, typer.Argument(help="The new node's name.")],
    zone: Annotated[str, typer.Option(help="Its site.")] = "",
    out: Annotated[Path | None, typer.Option(help="Its folder; default: nodes/NAME beside the coordinator's.")] = None,
    prefix: Annotated[str, typer.Option(help="Folder on its host below which `node` goes.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Write the folder of a new node and register its key; its owner names the data and runs start.sh."""
    from scripts.deploy.kit.kit import KitNode
    from scripts.deploy.lifecycle import members
    from scripts.terminal.output import Output
    from trfmoe_core.config.load import validate

    output = Output(as_json)
    node = validate(KitNode, {"name": name, "zone": zone or None}, "trfmoe deploy add-node")
    folder, registered = members.add_node(directory, node, out, prefix or None)
    output.line(f"{folder}  for its owner alone, by a safe way, and then delete it here")
    output.line("its key is registered" if registered else "its key is registered when the coordinator starts")
    output.result({"outcome": "added", "folder": str(folder), "registered": registered, "exit_code": 0})


def revoke(
    directory: KitArgument,
    name: Annotated[str, typer.Argument(help="The node's name.")],
    as_json: JsonOption = False,
) -> None:
    """Take a node's key away for good: its SuperNode ends within seconds, and the key never gets in again."""
    from scripts.deploy.lifecycle.members import revoke_node
    from scripts.terminal.output import Output

    output = Output(as_json)
    revoke_node(directory, name)
    output.line(f"{name}: its key is revoked; `trfmoe deploy add-node {directory} {name}` makes it a new one")
    output.result({"outcome": "revoked", "node": name, "exit_code": 0})


def rotate(
    directory: KitArgument,
    node: Annotated[str, typer.Option(help="Replace the key of this node; with --key.")] = "",
    key: Annotated[Path | None, typer.Option(help="Its new public key, next.pub of `trfmoe node rotate`.")] = None,
    server: Annotated[bool, typer.Option("--server", help="Make a new server key and certificate.")] = False,
    authority: Annotated[str, typer.Option(help="begin or finish: replace the authority that nodes trust.")] = "",
    authority_dir: Annotated[Path | None, typer.Option(help="The authority's folder; default: beside DIR.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Replace a node's key, the server's certificate, or the authority; give one of --node, --server, --authority."""
    from scripts.terminal.output import Output
    from trfmoe_core.errors import ConfigError

    output = Output(as_json)
    if (bool(node) + server + bool(authority)) != 1 or bool(node) != (key is not None):
        raise ConfigError("give one of: --node NAME --key next.pub, --server, --authority begin or finish")
    if key is not None:
        _replace_key(directory, node, key, output.line)
    elif authority == "begin":
        _begin_authority(directory, authority_dir, output.line)
    elif server or authority == "finish":
        _renew(directory, authority_dir, bool(authority), output.line)
    else:
        raise ConfigError(f"--authority {authority}: is neither begin nor finish")
    output.result({"outcome": "rotated", "exit_code": 0})


def upgrade(directory: KitArgument, as_json: JsonOption = False) -> None:
    """Bring the kit's scripts up to date, ask every node whether this release may run there, say who has to act.

    Exit codes: 0 every owner allows it, 1 somebody does not yet or could not be asked.
    """
    from dataclasses import asdict

    from scripts.deploy.allowed_code import release
    from scripts.deploy.kit.kit import coordinator_folder
    from scripts.deploy.lifecycle.refresh import refresh as write_anew
    from scripts.deploy.lifecycle.upgrade import ask_allowances
    from scripts.processes.control import app_hash
    from scripts.run.simulation import app_folder
    from scripts.terminal.output import Output, one_line

    output = Output(as_json)
    digest = app_hash(app_folder())
    output.line(f"{release()}, app {digest}")
    changed = write_anew(coordinator_folder(directory), moved=False)
    tell_written(changed, output.line)
    found = ask_allowances(directory)
    remedies = {
        "allows": "allows it",
        "refuses": "has not allowed it yet; its owner installs the release and runs: trfmoe deploy allow . --only",
        "busy": "works on something else; ask again when its run has ended",
        "offline": "is not online; its owner runs start.sh, and the same question again",
    }
    for known in found:
        output.line(one_line(f"{known.node}: {remedies.get(known.answer, known.reason)}"))
    missing = [known.node for known in found if known.answer != "allows"]
    code = 1 if missing else 0
    output.result(
        {
            "outcome": "asked",
            "app": digest,
            "written": [str(path) for path in changed],
            "nodes": [asdict(known) for known in found],
            "missing": missing,
            "exit_code": code,
        }
    )
    raise typer.Exit(code)


def refresh(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="A kit, or a coordinator's or node's folder of one.")
    ],
    prefix: Annotated[str, typer.Option(help="Folder on the hosts below which `coordinator` and `node` go.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Write start scripts, units and nginx.conf anew for this release and for where the folder lies now."""
    from scripts.deploy.lifecycle.refresh import refresh as write_anew
    from scripts.terminal.output import Output

    output = Output(as_json)
    changed = write_anew(directory, prefix or None)
    tell_written(changed, output.line)
    if not changed:
        output.line("all is as this release writes it, for the folder in which it lies")
    output.result({"outcome": "refreshed", "written": [str(path) for path in changed], "exit_code": 0})


def tell_written(changed: list[Path], tell: Callable[[str], None]) -> None:
    """Says which files of a kit were written anew, and what makes them take effect."""
    from scripts.deploy.kit.written_files import OLD_SUFFIX
    from scripts.deploy.lifecycle.refresh import install_hints

    for path in changed:
        old = path.with_name(f"{path.name}{OLD_SUFFIX}")
        tell(f"written anew: {path}" + (f"; what was changed in it by hand is in {old.name}" if old.exists() else ""))
    if any(path.name == "start.sh" for path in changed):
        tell("a start.sh that is running goes on as it was; start it again when no run is going on")
    for hint in install_hints(changed):
        tell(f"if you have installed it: {hint}")


def _replace_key(directory: Path, node: str, key: Path, tell: Callable[[str], None]) -> None:
    from scripts.deploy.lifecycle.node_key import replace_key
    from trfmoe_core.errors import ConfigError

    try:
        public = key.read_bytes()
    except OSError as error:
        raise ConfigError(f"--key {key}: cannot be read ({error.strerror})") from error
    replace_key(directory, node, public)
    tell(f"{node}: the new key is registered, the old one is revoked; the node takes it into use by itself")


def _begin_authority(directory: Path, authority_dir: Path | None, tell: Callable[[str], None]) -> None:
    from scripts.deploy.lifecycle.authority import authority_folder, begin_authority

    both = begin_authority(directory, authority_folder(directory, authority_dir))
    tell(f"{both}: holds the old and the new authority; send it to every owner, who runs: trfmoe node trust . FILE")
    tell(f"when all have: trfmoe deploy rotate {directory} --authority finish")


def _renew(directory: Path, authority_dir: Path | None, finish: bool, tell: Callable[[str], None]) -> None:
    from scripts.deploy.lifecycle.authority import authority_folder, finish_authority, renew_server, restart_superlink

    folder = authority_folder(directory, authority_dir)
    (finish_authority if finish else renew_server)(directory, folder)
    tell("the server has a new certificate" + (" of the new authority" if finish else ""))
    if restart_superlink(directory):
        tell("the SuperLink was ended, and start.sh or systemd starts it again with the new certificate")
    else:
        tell("a SuperLink that is running has to be started again")
    tell("let the proxy read it: sudo nginx -s reload")
