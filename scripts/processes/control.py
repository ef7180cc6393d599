"""The SuperLink's control interface on loopback: registers nodes, starts, asks and stops runs.

The same calls as the `flwr` command's, without a new process for each, which takes seconds on a busy machine.
"""

import hashlib
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.cli.build import build_fab_from_files
from flwr.cli.cli_client_interceptor import CliClientHttpInterceptor
from flwr.common.serde import fab_to_proto, run_from_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    StreamLogsRequest,
    UnregisterNodeRequest,
)
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.utils import simulation_config_from_json

from scripts.processes.proxies import mend_environment
from trfmoe_core.errors import RunError

FAULT_PATIENCE_S = 60.0


class RunState(NamedTuple):
    """A run as the SuperLink knows it.

    Attributes:
        status: For instance `running` or `finished:completed`.
        details: What Flower says besides.
        run_dir: Its folder; None if it trains nothing.
        app: SHA-256 of the app's bundle, in hexadecimal: what node owners allow.
    """

    status: str
    details: str
    run_dir: Path | None = None
    app: str = ""

    @property
    def finished(self) -> bool:
        """True if it has ended."""
        return self.status.startswith("finished")


class NodeState(NamedTuple):
    """A registered node. `since` is when it came online or went offline last, as ISO 8601; empty if it never was."""

    status: str
    since: str = ""


class SuperLinkError(RunError):
    """The SuperLink met an error of its own, as while its programs, just started, share one database file."""


class Control:
    """A SuperLink's control interface.

    Args:
        address: `host:port`.
        authority: The certificate that signed the SuperLink's; None: a SuperLink of this command without TLS.
        remedy: What to do if it does not answer.
    """

    def __init__(self, address: str, authority: Path | None, remedy: str = "") -> None:
        self._address = address
        self._authority = authority
        self._remedy = remedy
        mend_environment()  # Flower's client asks the environment for a proxy

    def register(self, public_key: bytes, name: str) -> bool:
        """Registers an OpenSSH public key under a name; returns whether it is new.

        Raises:
            RunError: it is no such key, or the SuperLink refuses or does not answer.
        """
        request = RegisterNodeRequest(public_key=_key_bytes(public_key, name), name=name)
        end = time.monotonic() + FAULT_PATIENCE_S
        while True:
            try:
                with self._client(f"register {name}", known=ApiErrorCode.PUBLIC_KEY_ALREADY_IN_USE) as (client, known):
                    client.RegisterNode(request)
                return not known
            except SuperLinkError:  # to register twice is as good as once, so it may be asked again
                if time.monotonic() >= end:
                    raise
                time.sleep(0.5)

    def unregister(self, public_key: bytes) -> None:
        """Unregisters the node of an OpenSSH public key, for good; one that is not registered is left as it is.

        Raises:
            RunError: it is no such key, or the SuperLink refuses or does not answer.
        """
        wanted = _key_bytes(public_key, "the node")
        with self._client("unregister a node", known=ApiErrorCode.NODE_NOT_FOUND) as (client, _):
            for node in client.ListNodes(ListNodesRequest()).nodes_info:
                if node.public_key == wanted and node.status != "unregistered":
                    client.UnregisterNode(UnregisterNodeRequest(node_id=node.node_id))

    def state_of(self, public_key: bytes) -> str:
        """Returns the status of the node of an OpenSSH public key; an empty text if there is none."""
        wanted = _key_bytes(public_key, "the node")
        with self._client("list nodes") as (client, _):
            answer = client.ListNodes(ListNodesRequest())
        return next((str(node.status) for node in answer.nodes_info if node.public_key == wanted), "")

    def nodes(self) -> dict[str, NodeState]:
        """Returns the registered nodes by name. Their status is online, offline, registered or unregistered."""
        with self._client("list nodes") as (client, _):
            answer = client.ListNodes(ListNodesRequest())
        # A node whose key was replaced stands there twice; the key that counts has the last word.
        entries = sorted(answer.nodes_info, key=lambda node: node.status != "unregistered")
        return {
            str(node.name or node.node_id): NodeState(
                str(node.status), str(node.last_activated_at if node.status == "online" else node.last_deactivated_at)
            )
            for node in entries
        }

    def start(self, app: Path, settings: Mapping[str, str], simulation: Mapping[str, float] | None = None) -> int:
        """Submits an app's folder as a run and returns its id.

        Args:
            app: The folder.
            settings: The run's configuration.
            simulation: Settings of the simulation engine by Flower's names, where the SuperLink simulates its nodes.

        Raises:
            RunError: the SuperLink takes no run.
        """
        content = app_bundle(app)
        fab = Fab(hashlib.sha256(content).hexdigest(), content, {})
        request = StartRunRequest(fab=fab_to_proto(fab), override_config=user_config_to_proto(dict(settings)))
        if simulation is not None:
            request.override_federation_config.CopyFrom(simulation_config_from_json(dict(simulation)))
        with self._client("start a run") as (client, _):
            answer = client.StartRun(request)
        if not answer.HasField("run_id"):
            raise RunError(f"{self._address}: the SuperLink took no run {answer.note}")
        return int(answer.run_id)

    def runs(self) -> dict[int, RunState]:
        """Returns every run by Flower's id, in the order in which they were started."""
        with self._client("list runs") as (client, _):
            answer = client.ListRuns(ListRunsRequest())
        found = {}
        for proto in sorted(answer.run_dict.values(), key=lambda proto: str(proto.pending_at)):
            run = run_from_proto(proto)
            status = run.status
            text = f"{status.status}:{status.sub_status}" if status.sub_status else str(status.status)
            place = run.override_config.get("run-dir")
            run_dir = Path(str(place)) if place else None
            found[int(run.run_id)] = RunState(text, str(status.details or ""), run_dir, str(run.fab_hash))
        return found

    def stop(self, run_id: int) -> None:
        """Stops a run, so that no node begins work for it any more; one that has ended is left as it is."""
        with self._client(f"stop run {run_id}", known=ApiErrorCode.RUN_ALREADY_FINISHED) as (client, _):
            client.StopRun(StopRunRequest(run_id=run_id))

    def stream_log(self, run_id: int, after: float = 0.0) -> Iterator[tuple[str, float]]:
        """Yields what a run's server app logs, with the time of the last line, until the run ends.

        Args:
            run_id: Flower's.
            after: Seconds since 1970. Earlier lines are left out.
        """
        with self._client(f"read the log of run {run_id}") as (client, _):
            for answer in client.StreamLogs(StreamLogsRequest(run_id=run_id, after_timestamp=after)):
                yield str(answer.log_output), float(answer.latest_timestamp)

    @contextmanager
    def _client(self, what: str, known: int | None = None) -> Iterator[tuple[ControlHttpClient, list[int]]]:
        met: list[int] = []
        client: Any = None
        try:
            client = ControlHttpClient.from_server_address(
                self._address,
                insecure=self._authority is None,
                root_certificates=self._authority.read_bytes() if self._authority else None,
                interceptors=[CliClientHttpInterceptor(), RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
            )
            yield client, met
        except httpx.HTTPStatusError as error:
            told = FlowerError.from_json(error.response.text)
            if told is None or told.code != known:
                text = told.message if told else error.response.text[:300] or str(error)
                kind = SuperLinkError if error.response.status_code >= 500 else RunError
                raise kind(f"{self._address}: the SuperLink refuses to {what}: {text}") from error
            met.append(told.code)
        except (httpx.HTTPError, OSError) as error:
            remedy = f"; {self._remedy}" if self._remedy else ""
            where = f"the SuperLink at {self._address} does not answer ({error}){remedy}"
            raise RunError(f"cannot {what}: {where}") from error
        finally:
            if client is not None:
                client.close()


def _key_bytes(public_key: bytes, name: str) -> bytes:
    """Returns an OpenSSH public key as Flower compares it.

    Raises:
        RunError: it is no EC key.
    """
    try:
        key = serialization.load_ssh_public_key(public_key)
    except ValueError as error:
        raise RunError(f"{name}: its public key cannot be read ({error})") from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise RunError(f"{name}: its public key is no EC key; `trfmoe deploy init` makes the right ones")
    return public_key_to_bytes(key)


@cache
def app_bundle(app: Path) -> bytes:
    """Returns the bundle that `flwr run` makes of an app's folder, the same bytes everywhere for the same code.

    Only what the app includes is looked at: Flower itself walks the virtual environment too, for seconds.
    """
    patterns = tomllib.loads((app / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["flwr"]["app"]["fab-include"]
    found = {path for pattern in ("pyproject.toml", ".gitignore", "LICENSE", *patterns) for path in app.glob(pattern)}
    return build_fab_from_files({path.relative_to(app).as_posix(): path for path in sorted(found)})[0]


def app_hash(app: Path) -> str:
    """Returns the SHA-256 of an app's bundle, in hexadecimal: what node owners allow."""
    return hashlib.sha256(app_bundle(app)).hexdigest()
