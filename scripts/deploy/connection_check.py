"""Asks a coordinator over the network what a node will meet there: certificate, clock, closed doors, its own name."""

import email.utils
import http.client
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from scripts.deploy.kit.kit import Connection, Coordinator
from scripts.processes.control import Control
from scripts.processes.proxies import proxies_in_use, transport_errors
from scripts.terminal.findings import Finding, trouble, warning, well
from trfmoe_core.counts import counted
from trfmoe_core.errors import RunError

TIMEOUT_S = 5.0
AHEAD_S, BEHIND_S = 5.0, 300.0
"""How far a node's clock may be ahead of the coordinator's and behind it; Flower refuses its signatures otherwise."""
_OF_A_PROXY = (httpx.codes.BAD_GATEWAY, httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.GATEWAY_TIMEOUT)
CONTROL_PATH = "/v1/control/list-nodes"
Registration = Literal["known", "unknown", "refused", "odd", "away"]
"""`refused`: the signature; `odd`: an answer that a SuperLink of this release does not give; `away`: no answer."""


def check_coordinator(folder: Path, coordinator: Coordinator) -> Iterator[Finding]:
    """Yields findings about the SuperLink on this machine, and about the proxy before it."""
    control = Control(f"127.0.0.1:{coordinator.superlink_port}", folder / "ca.crt")
    if not port_open("127.0.0.1", coordinator.superlink_port):
        text = f"nothing listens on 127.0.0.1:{coordinator.superlink_port}"
        yield warning("reach", f"the SuperLink is not running: {text}", f"{folder}/start.sh")
    else:
        try:
            nodes = {name: node for name, node in control.nodes().items() if node.status != "unregistered"}
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
                remedy = f"`trfmoe deploy revoke {folder} NAME` unregisters a node"
                yield warning("leftovers", text, remedy)
            online = sum(node.status == "online" for node in nodes.values())
            yield well("registration", f"{counted(len(nodes), 'node')} registered, {online} online")
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


def registration(folder: Path, connection: Connection, key: ec.EllipticCurvePrivateKey) -> tuple[Registration, str]:
    """Asks the coordinator whether it knows a node's key, which changes nothing there; returns the answer and details.

    Args:
        folder: The node's folder, for the authority's certificate.
        connection: Where the coordinator is.
        key: The node's private key.
    """
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
            return "known", ""
        if error.response.status_code == httpx.codes.UNAUTHORIZED:
            return "refused", ""
        if told is not None and told.code == ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED:
            return "unknown", ""
        if error.response.status_code in _OF_A_PROXY:
            return (
                "odd",
                f"{error.response.status_code}: the proxy is there, but the SuperLink behind it does not answer",
            )
        return "odd", f"{error.response.status_code} {error.response.text[:200]}"
    except transport_errors() as error:
        return "away", str(error)
    finally:
        client.close()
    return "known", ""


def _check_registration(folder: Path, connection: Connection, key: ec.EllipticCurvePrivateKey) -> Iterator[Finding]:
    found, details = registration(folder, connection, key)
    if found == "known":
        yield well("registration", "the coordinator knows this node's key")
    elif found == "refused":
        yield trouble("clock", "the coordinator refuses this node's signature", "set both clocks right")
    elif found == "unknown":
        text = "the coordinator does not know this node's key: it was never registered, or it was revoked"
        yield trouble("registration", text, "ask the operator, who adds nodes with `trfmoe deploy add-node`")
    elif found == "odd":
        remedy = "is the SuperLink running, and what does its log say? is one release of Flower used everywhere?"
        yield warning("registration", f"the coordinator answers {details}", remedy)
    elif told_proxies := ", ".join(f"{name}={url}" for name, url in proxies_in_use().items()):
        # Without a proxy it is not reached either way, which is said already.
        text = f"{connection.address}: not reached through {told_proxies} ({details}), which this node goes through"
        yield warning("reach", text, f"mend the proxy, or add {connection.host} to NO_PROXY")
