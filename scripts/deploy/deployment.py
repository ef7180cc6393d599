"""A whole deployment on this machine's loopback: SuperLink, executor and SuperNodes with TLS and keys, kept up.

What ends is started again: a SuperNode after a delay, since Flower refuses a known key for up to a minute; the
SuperLink at once, on the same port and database. When the server app is lost, the run goes on in a new one at the last
committed round.
"""

import os
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from scripts.deploy import flower_commands
from scripts.deploy.allowed_code import ALLOWED_FILE
from scripts.deploy.database import make_database
from scripts.deploy.flower_commands import Isolation
from scripts.deploy.kit.kit import NODE_FILE, Coordinator, KitNode, write_file, write_kit
from scripts.deploy.lifecycle.endings import ending, signal_name
from scripts.deploy.submission import Submission
from scripts.processes.control import Control, app_hash
from scripts.processes.group import ProcessGroup
from scripts.run.simulation import ANSI, app_folder, flower_environment, free_port, install_programs
from server.run_folder.folder import RunFolder
from trfmoe_core.config import NodeSettings
from trfmoe_core.config.yaml_text import dump_yaml
from trfmoe_core.errors import RunError
from trfmoe_core.places import inside
from trfmoe_core.private import private_folder

START_DEADLINE_S = 90.0
ONLINE_DEADLINE_S = 120.0
NODE_DELAY_S = 5.0
TAIL_BYTES = 4096
LOOPBACK = "127.0.0.1"


@dataclass(kw_only=True)
class Service:
    """A process that is kept up."""

    name: str
    argv: list[str]
    env: dict[str, str]
    cwd: Path
    log: Path
    delay_s: float
    health: Callable[[], bool]
    pid: int = 0
    restarts: int = 0
    down_since: float | None = field(default=None)


class Deployment:
    """Context manager around the processes of one deployment; all of them have ended when it is left.

    Args:
        folder: The run; its recipe's nodes are started.
        isolation: How SuperLink and executor live together; see `scripts/deploy/flower_commands.py`.
        tell: Called with a line whenever a process is started again.
        host: The address that everything listens on.
        launchers: Node -> a command that its SuperNode is started through, such as into a network namespace.
        unchecked: Nodes that run whatever code arrives, with Flower's own client.
    """

    def __init__(
        self,
        folder: RunFolder,
        isolation: Isolation,
        tell: Callable[[str], None],
        *,
        host: str = LOOPBACK,
        launchers: Mapping[str, Sequence[str]] | None = None,
        unchecked: Collection[str] = (),
    ) -> None:
        self.folder = folder
        self.isolation: Isolation = isolation
        self.host = host
        self._launchers = launchers or {}
        self._unchecked = unchecked
        self.services: dict[str, Service] = {}
        self.submission: Submission | None = None
        self._tell = tell
        self._family = ProcessGroup()
        self._kit = self._family.scratch / "kit"
        self._logs = folder.path / "logs"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._family.close()

    @property
    def alive(self) -> bool:
        """True if the guard of the processes is there."""
        return self._family.alive

    def start(self) -> None:
        """Starts everything and waits until all of it is healthy and every node is online.

        Raises:
            RunError: something does not start; the message ends with the last lines of its log.
        """
        install_programs(self.scratch)
        nodes = self.folder.recipe.nodes
        if taken := {"superlink", "superexec"} & {node.name for node in nodes}:
            raise RunError(f"nodes: {taken.pop()} is the name of a process of the coordinator's; choose another")
        for attempt in range(3):  # another program may take a port between our look and Flower's
            port = free_port()
            shutil.rmtree(self._kit, ignore_errors=True)
            write_kit(self._kit, self._coordinator(port))
            if self._start_superlink(port, last=attempt == 2):
                break
        if self.isolation == "process":
            self._start_superexec(port)
        home = self._kit / "coordinator"
        self.submission = Submission(self.folder, Control(f"{self.host}:{port}", home / "ca.crt"), self._tell)
        self.submission.register([(self._kit / "nodes" / n.name / "node.pub", _kit_node(n)) for n in nodes])
        digest = app_hash(app_folder())
        for node in nodes:
            self._start_node(node, port, digest)
        for service in self.services.values():
            self._await(service)
        self.submission.await_online([_kit_node(node).registered for node in nodes], ONLINE_DEADLINE_S)

    def submit(self) -> None:
        """Starts the run.

        Raises:
            RunError: Flower does not take it.
        """
        self._submission().submit()

    def finished(self) -> bool:
        """Returns True if the run has come to its end. Restarts what ended on the way; ask often."""
        if not self._family.alive:
            return True
        self.keep_up()
        return self._submission().finished()

    @property
    def scratch(self) -> Path:
        """The folder whose path marks every process of this deployment (`scripts/processes/guard.py`)."""
        return self._family.scratch

    def processes(self) -> list[psutil.Process]:
        """Returns every process of this deployment, at whatever depth."""
        return self._family.descendants()

    def keep_up(self) -> bool:
        """Starts again what has ended, when it is time for it; returns whether everything is up and healthy."""
        for service in self.services.values():
            self._keep_up(service)
        return all(service.down_since is None for service in self.services.values())

    def status(self) -> tuple[str, str]:
        """Returns Flower's status of the run and details."""
        if not self._family.alive:
            return "lost", "the guard of the processes was killed"
        return self._submission().status()

    def _submission(self) -> Submission:
        if self.submission is None:
            raise RunError("the deployment was not started")
        return self.submission

    def _coordinator(self, port: int) -> Coordinator:
        nodes = [_kit_node(node) for node in self.folder.recipe.nodes]
        return Coordinator(host=self.host, port=port, superlink_port=port, nodes=nodes)

    def _environment(self, home: Path, first: Path | None = None) -> dict[str, str]:
        environment = flower_environment(home)
        programs = [str(self.scratch / "bin"), str(Path(sys.executable).parent), environment["PATH"]]
        environment["PATH"] = os.pathsep.join([*([str(first)] if first else []), *programs])
        return environment

    def _service(
        self, name: str, argv: list[str], env: dict[str, str], delay_s: float, health: Callable[[], bool]
    ) -> Service:
        empty = self._family.scratch / "empty"  # Flower imports apps from the working folder first
        empty.mkdir(exist_ok=True)
        log = inside(private_folder(self._logs), f"{name}.log")
        service = Service(name=name, argv=argv, env=env, cwd=empty, log=log, delay_s=delay_s, health=health)
        service.pid = self._family.start(name, argv, env, empty, log)
        self.services[name] = service
        return service

    def _start_superlink(self, port: int, last: bool) -> bool:
        folder = self._kit / "coordinator"
        make_database(folder / "state.db")
        argv = flower_commands.superlink(str(folder), self.host, port, self.isolation)
        service = self._service(
            "superlink", argv, self._environment(folder), 0.0, lambda: http_health(port, folder / "ca.crt", self.host)
        )
        try:
            self._await(service)
        except RunError:
            if last:
                raise
            return False
        return True

    def _start_superexec(self, port: int) -> None:
        folder, health = self._kit / "coordinator", free_port()
        argv = flower_commands.superexec(str(folder), f"{self.host}:{port}", health)
        self._service("superexec", argv, self._environment(folder), 1.0, lambda: grpc_health(health))

    def _start_node(self, node: NodeSettings, port: int, digest: str) -> None:
        folder = inside(self._kit / "nodes", node.name)
        settings = dump_yaml(node.model_dump(mode="json"))
        write_file(folder / NODE_FILE, settings, 0o600)
        write_file(folder / ALLOWED_FILE, f"{digest}\n", 0o600)
        environment = self._environment(folder, None if node.name in self._unchecked else folder / "bin") | {
            "TRFMOE_PYTHON": sys.executable,
            "TRFMOE_NODE_FILE": str(folder / NODE_FILE),
        }
        own, health = free_port(), free_port()
        argv = flower_commands.supernode(str(folder), f"{self.host}:{port}", own, health)
        launcher = self._launchers.get(node.name)
        if launcher is None:
            self._service(node.name, argv, environment, NODE_DELAY_S, lambda: grpc_health(health) and http_health(own))
        else:  # its own ports are not to be seen from here; that it comes online has to do
            self._service(node.name, [*launcher, *argv], environment, NODE_DELAY_S, lambda: True)

    def _await(self, service: Service) -> None:
        deadline = time.monotonic() + START_DEADLINE_S
        while not service.health():
            if not self._family.running(service.name) or time.monotonic() > deadline:
                text = service.log.read_text(encoding="utf-8", errors="replace") if service.log.exists() else ""
                tail = "\n".join("  " + line for line in ANSI.sub("", text).splitlines()[-12:])
                raise RunError(f"{service.name}: did not start; {service.log} ends with:\n{tail}")
            time.sleep(0.2)

    def _keep_up(self, service: Service) -> None:
        now = time.monotonic()
        if self._family.running(service.name):
            if service.down_since is not None and service.health():
                service.down_since = None
            return
        if service.down_since is None:
            service.down_since = now
            code = self._family.exits.get(service.name)
            again = f" in {service.delay_s:g} s" if service.delay_s else ""
            self._tell(f"{service.name} ended ({self._why(service, code)}); it is started again{again}")
        if now - service.down_since >= service.delay_s:
            service.restarts += 1
            service.down_since = now
            service.pid = self._family.start(service.name, service.argv, service.env, service.cwd, service.log)

    def _why(self, service: Service, code: int | None) -> str:
        if service.name not in {node.name for node in self.folder.recipe.nodes}:
            return f"killed by {signal_name(-code)}" if code is not None and code < 0 else f"exit code {code}"
        tail = service.log.read_bytes()[-TAIL_BYTES:] if service.log.exists() else b""
        return ending(inside(self._kit / "nodes", service.name), code, tail.decode("utf-8", "replace")).reason


def http_health(port: int, authority: Path | None = None, host: str = LOOPBACK) -> bool:
    """Returns True if a Flower server answers `/health`; over TLS when an authority's certificate is given."""
    context = ssl.create_default_context(cafile=str(authority)) if authority else None
    handlers = [urllib.request.ProxyHandler({}), *([urllib.request.HTTPSHandler(context=context)] if context else [])]
    opener = urllib.request.build_opener(*handlers)
    url = f"{'https' if authority else 'http'}://{host}:{port}/health"
    try:
        with opener.open(url, timeout=2.0) as answer:
            return int(answer.status) == 200
    except (urllib.error.URLError, OSError, ValueError):
        return False


def grpc_health(port: int) -> bool:
    """Returns True if a gRPC health service on loopback says that it serves."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(f"{LOOPBACK}:{port}") as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2.0)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _kit_node(node: NodeSettings) -> KitNode:
    return KitNode(name=node.name, zone=node.zone)
