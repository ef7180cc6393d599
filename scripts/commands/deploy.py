"""`trfmoe deploy`: real processes with TLS and keys, on this machine or as a kit for many."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scripts.commands.deploy_kit import add_node, refresh, revoke, rotate, tell_written, upgrade
from scripts.commands.deploy_runs import attach, logs, run, status, stop
from scripts.terminal.options import (
    AllOption,
    DryRunOption,
    JsonOption,
    PdfsOption,
    ResumeOption,
    RunDirOption,
    SetOption,
)
from trfmoe_core.counts import counted

if TYPE_CHECKING:
    from scripts.deploy.flower_commands import Isolation
    from scripts.run.outcome import RunOutcome
    from scripts.terminal.output import Output
    from server.run_folder.folder import RunFolder

deploy = typer.Typer(help="Run on real processes with TLS and keys: here, or on many hosts.", no_args_is_help=True)
for command in (run, status, attach, stop, logs, add_node, revoke, rotate, upgrade, refresh):
    deploy.command()(command)
PAIRS: "dict[str, Isolation]" = {"production": "process", "default": "subprocess"}
PairOption = Annotated[
    str, typer.Option("--pair", help="production: SuperLink and executor are two processes; default: Flower's own.")
]


@deploy.command()
def local(
    config: Annotated[
        Path | None, typer.Argument(help="Recipe, such as configs/tiny.yaml; not needed with --run-dir.")
    ] = None,
    overrides: SetOption = [],  # noqa: B006
    pdfs: PdfsOption = [],  # noqa: B006
    resume: ResumeOption = False,
    run_dir: RunDirOption = None,
    pair: PairOption = "production",
    dry_run: DryRunOption = False,
    everything: AllOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run a recipe on a SuperLink and SuperNodes of this machine: separate processes, TLS, a key for every node."""
    from scripts.run.dry_run import show_dry_run
    from scripts.run.federated_run import resolve, run_federation
    from scripts.terminal.output import Output
    from trfmoe_core.config import check_federated
    from trfmoe_core.errors import ConfigError

    output = Output(as_json)
    if pair not in PAIRS:
        raise ConfigError(f"--pair {pair}: is neither production nor default")
    recipe = resolve(config, overrides, pdfs, run_dir)
    check_federated(recipe, str(config or run_dir), overrides)
    if dry_run:
        show_dry_run(recipe, output, everything)
        return
    engine = partial(run_deployed, isolation=PAIRS[pair])
    outcome = run_federation(recipe, output, resume=resume, run_dir=run_dir, engine=engine, command="deploy local")
    output.result(outcome.payload())
    raise typer.Exit(outcome.exit_code)


def run_deployed(folder: "RunFolder", output: "Output", isolation: "Isolation") -> "RunOutcome":
    """Runs a run folder on a deployment of this machine, and returns its outcome.

    Raises:
        RunError: the deployment or the run does not start.
    """
    from scripts.deploy.deployment import Deployment
    from scripts.deploy.following import follow

    with Deployment(folder, isolation, output.line) as deployment:
        deployment.start()
        output.line(
            f"SuperLink, executor and {counted(len(folder.recipe.nodes), 'node')} are up; logs {folder.path / 'logs'}"
        )
        return follow(folder, output, deployment, deployment.submit)


@deploy.command()
def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
    host: Annotated[str, typer.Option(help="Name or address at which nodes reach the coordinator.")],
    nodes: Annotated[str, typer.Option(help="Names, such as alice,bob,carol.")],
    zones: Annotated[str, typer.Option(help="Their sites, one a node in the same order.")] = "",
    port: Annotated[int, typer.Option(help="Of the proxy, for nodes.")] = 9092,
    superlink_port: Annotated[int, typer.Option(help="Of the SuperLink, on the coordinator's loopback.")] = 9093,
    prefix: Annotated[str, typer.Option(help="Folder on the hosts below which `coordinator` and `node` go.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Write a kit for real hosts: certificates, keys, start scripts, units, the proxy's configuration."""
    from scripts.deploy.kit.kit import Coordinator, parse_nodes, write_kit
    from scripts.terminal.output import Output
    from trfmoe_core.config import ExpertsConfig
    from trfmoe_core.config.load import validate
    from trfmoe_core.errors import ConfigError

    output = Output(as_json)
    raw = {"host": host, "port": port, "superlink_port": superlink_port}
    raw["nodes"] = [node.model_dump() for node in parse_nodes(nodes, zones)]
    coordinator = validate(Coordinator, raw, "trfmoe deploy init")
    if port == superlink_port:
        raise ConfigError(f"--port {port}: is the SuperLink's own (--superlink-port) too; give the two different ports")
    write_kit(directory, coordinator, prefix or None)
    output.line(f"{directory}/authority    keep it where nobody else reads it; it signs the coordinator's certificate")
    output.line(f"{directory}/coordinator  for {coordinator.host}: see its README.md")
    for node in coordinator.nodes:
        output.line(f"{directory}/nodes/{node.name}  for its owner alone, by a safe way, and then delete it here")
    if len(coordinator.nodes) < (needed := ExpertsConfig().replication):
        output.line(
            f"{counted(len(coordinator.nodes), 'node')}, and a recipe needs {needed} unless it sets "
            "experts.replication; "
            f"add more with: trfmoe deploy add-node {directory} NAME"
        )
    output.result({"outcome": "written", "folder": str(directory), "exit_code": 0})


@deploy.command()
def check(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="A kit, or a coordinator's or node's folder of one.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Check a kit: keys and their modes, certificates, settings, and whether the coordinator is reached."""
    from scripts.deploy.kit.check import check_kit
    from scripts.terminal.findings import report
    from scripts.terminal.output import Output

    raise typer.Exit(report(check_kit(directory), Output(as_json)))


@deploy.command()
def allow(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A node's folder.")],
    app: Annotated[str, typer.Option(metavar="SHA256", help="This bundle instead of the installed release.")] = "",
    only: Annotated[bool, typer.Option("--only", help="And nothing else: the others are dropped.")] = False,
    show: Annotated[bool, typer.Option("--list", help="Change nothing; say what may run, since when.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Let the code of this machine's release run on a node, and bring its start script and unit up to date."""
    import re

    from scripts.deploy.allowed_code import ALLOWED_FILE, allow_app, allowed_apps, release
    from scripts.processes.control import app_hash
    from scripts.run.simulation import app_folder
    from scripts.terminal.output import Output, one_line
    from trfmoe_core.errors import ConfigError

    output = Output(as_json)
    _check_node_folder(directory)
    if app and not re.fullmatch(r"[0-9a-f]{64}", app):
        raise ConfigError(f"--app {app}: is no SHA-256 of 64 hexadecimal digits")
    if show and (app or only):
        raise ConfigError("--list changes nothing; leave out --app and --only")
    installed = app_hash(app_folder())
    if not show:
        digest = app or installed
        note = f"{release()}, {app_folder()}" if digest == installed else "given by its hash"
        dropped = [known.digest for known in allowed_apps(directory / ALLOWED_FILE) if only and known.digest != digest]
        new = allow_app(directory, digest, note, only=only)
        output.line(f"app {digest} {'may run from now on' if new else 'was allowed already'}")
        for other in dropped:
            output.line(f"app {other} may no longer run")
        written = _start_script(directory, output) if digest == installed else []
        result = {"outcome": "allowed", "app": digest, "new": new, "dropped": dropped}
        output.result({**result, "written": [str(path) for path in written], "exit_code": 0})
        return
    found = []
    for known in allowed_apps(directory / ALLOWED_FILE):
        here = known.digest == installed
        found.append({"app": known.digest, "note": known.note, "installed": here})
        output.line(one_line(f"app {known.digest}  {known.note or 'no note'}{'  (installed here)' if here else ''}"))
    if not found:
        output.line("nothing may run")
    output.result({"outcome": "listed", "installed": installed, "apps": found, "exit_code": 0})


@deploy.command()
def disallow(
    targets: Annotated[
        list[str],
        typer.Argument(metavar="[SHA256|DIR]...", help="Hashes or their beginnings, and a node's folder; else here."),
    ] = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Let code no longer run on a node, from its next message on: by its hash, or this machine's release."""
    import re

    from scripts.deploy.allowed_code import revoke_apps
    from scripts.processes.control import app_hash
    from scripts.run.simulation import app_folder
    from scripts.terminal.output import Output
    from trfmoe_core.errors import ConfigError

    output = Output(as_json)
    folders = [target for target in targets if Path(target).is_dir() or not re.fullmatch(r"[0-9a-f]+", target)]
    hashes = [target for target in targets if target not in folders]
    if len(folders) > 1:
        raise ConfigError(f"{', '.join(folders)}: give one node's folder")
    directory = Path(folders[0] if folders else ".")
    _check_node_folder(directory)
    disallowed = []
    for start in hashes or [app_hash(app_folder())]:
        gone = revoke_apps(directory, start)
        for app in gone:
            output.line(f"app {app.digest} may no longer run")
        if not gone:
            output.line(f"app {start} was not allowed")
        disallowed += [app.digest for app in gone]
    output.result({"outcome": "disallowed", "apps": disallowed, "exit_code": 0})


def _start_script(directory: Path, output: "Output") -> list[Path]:
    """Brings a node's start script and unit up to date, and returns what was written."""
    from scripts.deploy.kit.kit import CONNECTION_FILE
    from scripts.deploy.lifecycle.refresh import refresh as write_anew
    from trfmoe_core.errors import ConfigError

    if not (directory / CONNECTION_FILE).is_file():
        return []
    try:
        written = write_anew(directory)
    except ConfigError as error:
        output.warning(f"start.sh was not brought up to date: {error}")
        return []
    tell_written(written, output.line)
    return written


def _check_node_folder(directory: Path) -> None:
    from scripts.deploy.kit.kit import NODE_FILE
    from trfmoe_core.errors import ConfigError

    if not (directory / NODE_FILE).is_file():
        raise ConfigError(f"{directory}: no {NODE_FILE} in it; give a node's folder of `trfmoe deploy init`")


@deploy.command()
def register(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The coordinator's folder.")],
    wait_s: Annotated[float, typer.Option("--wait", help="Seconds to wait for the SuperLink.")] = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Register the nodes' public keys with the SuperLink that runs here; those it knows are left as they are."""
    import time

    from scripts.deploy.connection_check import port_open
    from scripts.deploy.kit.kit import coordinator_folder, read_coordinator
    from scripts.deploy.lifecycle.members import open_control
    from scripts.terminal.output import Output

    output = Output(as_json)
    folder = coordinator_folder(directory)
    coordinator = read_coordinator(folder)
    end = time.monotonic() + wait_s
    while not port_open("127.0.0.1", coordinator.superlink_port) and time.monotonic() < end:
        time.sleep(0.5)
    control = open_control(folder)
    known = {}
    for node in coordinator.nodes:
        new = control.register((folder / "keys" / f"{node.name}.pub").read_bytes(), node.registered)
        known[node.registered] = new
        output.line(f"{node.registered}: {'registered' if new else 'was registered already'}")
    output.result({"outcome": "registered", "nodes": known, "exit_code": 0})
