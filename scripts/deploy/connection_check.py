"""Asks a coordinator over the network what a node will meet there: certificate, clock, closed doors, its own name."""

import email.utils
import http.client
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from scripts.deploy.kit import Connection, Coordinator
from scripts.processes.control import Control
from scripts.processes.proxies import proxies_in_use, transport_errors
from scripts.terminal.findings import Finding, trouble, warning, well
from trfmoe_core.errors import RunError

TIMEOUT_S = 5.0
AHEAD_S, BEHIND_S = 5.0, 300.0
"""How far a node's clock may be ahead of the coordinator's and behind it; Flower refuses its signatures otherwise."""
CONTROL_PATH = "/v1/control/list-nodes"


def check_coordinator(folder: Path, coordinator: Coordinator) -> Iterator[Finding]:
    """Yields findings about the SuperLink on this machine, and about the proxy before it."""
    control = Control(f"127.0.0.1:{coordinator.superlink_port}", folder / "ca.crt")
    if not port_open("127.0.0.1", coordinator.superlink_port):
        text = f"nothing listens on 127.0.0.1:{coordinator.superlink_port}"
        yield warning("reach", f"the SuperLink is not running: {text}", f"{folder}/start.sh")
    else:
        try:
            nodes = control.nodes()
        except RunError as error:
            remedy = f"free port {coordinator.superlink_port}, or change superlink_port, start.sh and nginx.conf"
            yield trouble("port", f"another program holds the SuperLink's port: {error}", remedy)
        else:
            missing = [node.name for node in coordinator.nodes if node.registered not in nodes]
            if missing:
                text = f"not registered: {', '.join(missing)}"
                yield trouble("registration", text, f"trfmoe deploy register {folder}")
            strangers = sorted(set(nodes) - {node.registered for node in coordinator.nodes})
            if strangers:
                text = f"registered, and not in this kit: {', '.join(strangers)}"
                remedy = "unregister them with `flwr supernode unregister`, or list them in coordinator.yaml"
                yield warning("leftovers", text, remedy)
            online = sum(node.status == "online" for node in nodes.values())
            yield well("registration", f"{len(nodes)} nodes registered, {online} online")
    yield from _check_proxy(folder / "ca.crt", coordinator)


def check_node(folder: Path, connection: Connection) -> Iterator[Finding]:
    """Yields findings about the way from a node to its coordinator."""
    yield from _check_proxy(folder / "ca.crt", connection)
    key = serialization.load_ssh_private_key((folder / "node.key").read_bytes(), None)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        yield from _check_registration(folder, connection, key)


def port_open(host: str, port: int) -> bool:
    """Returns True if somebody accepts connections there."""
    try:
        with socket.create_connection((host, port), timeout=TIMEOUT_S):
            return True
    except OSError:
        return False


def _check_proxy(authority: Path, connection: Connection) -> Iterator[Finding]:
    address = connection.address
    context = ssl.create_default_context(cafile=str(authority))
    client = http.client.HTTPSConnection(connection.host, connection.port, timeout=TIMEOUT_S, context=context)
    try:
        client.request("POST", CONTROL_PATH, body=b"")
        answer = client.getresponse()
        answer.read()
    except ssl.SSLCertVerificationError as error:
        remedy = "use the name that the certificate is for, the kit's ca.crt, and a clock that is right"
        yield trouble("certificate", f"{address}: {error.verify_message}", remedy)
        return
    except (OSError, http.client.HTTPException) as error:
        remedy = "start the coordinator and its proxy, open the port, look at host and port"
        yield warning("reach", f"{address}: not reached ({error})", remedy)
        return
    finally:
        client.close()
    yield well("reach", f"{address}: answers with a certificate that the kit's authority signed")
    if answer.status == 403:
        yield well("reach", f"{address}: the control interface is closed")
    else:
        text = f"{address}: the control interface is open (status {answer.status}); whoever reaches it may run code"
        yield trouble("reach", text, "let nodes reach nginx with the kit's nginx.conf only, never the SuperLink")
    yield from clock_skew(answer.headers.get("Date"), time.time(), address)


def clock_skew(date: str | None, now_s: float, address: str) -> Iterator[Finding]:
    """Yields a finding about the difference between this clock and another machine's `Date` header."""
    told = email.utils.parsedate_to_datetime(date) if date else None
    if told is None:
        return
    ahead_s = now_s - told.timestamp()
    text = f"this clock is {abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} {address}'s"
    if ahead_s > AHEAD_S or ahead_s < -BEHIND_S:
        yield trouble("clock", f"{text}; Flower refuses a node's signature then", "run NTP on both, such as chrony")
    else:
        yield well("clock", text)


def _check_registration(folder: Path, connection: Connection, key: ec.EllipticCurvePrivateKey) -> Iterator[Finding]:
    client = FleetHttpClient.from_server_address(
        connection.address,
        False,
        (folder / "ca.crt").read_bytes(),
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="SuperNode"),
            NodeAuthHttpInterceptor(key, key.public_key()),
        ],
    )
    # An interval that no SuperLink takes: it looks the key up first, and then changes nothing.
    request = ActivateNodeRequest(public_key=public_key_to_bytes(key.public_key()), heartbeat_interval=0)
    try:
        client.ActivateNode(request)
    except httpx.HTTPStatusError as error:
        told = FlowerError.from_json(error.response.text)
        if told is not None and told.code == ApiErrorCode.FLEET_INVALID_HEARTBEAT_INTERVAL:
            yield well("registration", "the coordinator knows this node's key")
        elif error.response.status_code == httpx.codes.UNAUTHORIZED:
            yield trouble("clock", "the coordinator refuses this node's signature", "set both clocks right")
        elif told is not None and told.code == ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED:
            text = "the coordinator does not know this node's key"
            remedy = "send it node.pub for keys/NAME.pub there, and `trfmoe deploy register` it"
            yield trouble("registration", text, remedy)
        else:
            text = f"the coordinator answers {error.response.status_code} {error.response.text[:200]}"
            yield warning(
                "registration", text, "look at the SuperLink's log; is one release of Flower used everywhere?"
            )
    except transport_errors() as error:
        told_proxies = ", ".join(f"{name}={url}" for name, url in proxies_in_use().items())
        if told_proxies:  # without one it is not reached either way, which is said already
            text = f"{connection.address}: not reached through {told_proxies} ({error}), which this node goes through"
            yield warning("reach", text, f"mend the proxy, or add {connection.host} to NO_PROXY")
    finally:
        client.close()
