"""The command lines of Flower's server programs, for processes that we start and for the scripts of a kit alike."""

import shlex
from collections.abc import Sequence
from typing import Literal

Isolation = Literal["process", "subprocess"]
"""`process`: SuperLink and executor are two processes, and either may be restarted under a run. `subprocess`: the
SuperLink starts its executor itself, and both end together."""

STAND_INS = ("flwr-agentapp", "flwr-connector", "flwr-model", "flwr-serverapp", "flwr-simulation")
"""What a SuperNode could be told to run besides a client app."""


def superlink(folder: str, host: str, port: int | str, isolation: Isolation) -> list[str]:
    """Returns the SuperLink's command: TLS, registered nodes only, state on the disk of `folder`."""
    secret = ["--superexec-auth-secret-file", f"{folder}/superexec.secret"] if isolation == "process" else []
    return [
        *("flower-superlink", "--host", host, "--port", str(port), "--isolation", isolation, *secret),
        *("--ssl-ca-certfile", f"{folder}/ca.crt", "--ssl-certfile", f"{folder}/server.pem"),
        *("--ssl-keyfile", f"{folder}/server.key", "--enable-supernode-auth"),
        *("--database", f"{folder}/state.db", "--disable-runtime-dependency-installation"),
    ]


def superexec(folder: str, superlink_address: str, health_port: int | str | None = None) -> list[str]:
    """Returns the command of the executor, which starts the server app for a SuperLink on this machine."""
    health = [] if health_port is None else ["--health-server-address", f"127.0.0.1:{health_port}"]
    return [
        *("flower-superexec", "--root-certificates", f"{folder}/ca.crt", "--runtime-api-address", superlink_address),
        *("--superexec-auth-secret-file", f"{folder}/superexec.secret", *health),
    ]


def supernode(folder: str, address: str, port: int | str, health_port: int | str | None = None) -> list[str]:
    """Returns a SuperNode's command: key, certificate and settings lie in `folder`; its own port is on loopback."""
    health = [] if health_port is None else ["--health-server-address", f"127.0.0.1:{health_port}"]
    return [
        *("flower-supernode", "--superlink", address, "--root-certificates", f"{folder}/ca.crt"),
        *("--auth-supernode-private-key", f"{folder}/node.key", "--host", "127.0.0.1", "--port", str(port), *health),
        *("--node-config", f'settings="{folder}/node.yaml"'),
    ]


def shell(command: Sequence[str]) -> str:
    """Returns a command for a shell script; what begins with `$` in it is the script's variable."""
    words = []
    for word in command:
        escaped = word.replace("\\", "\\\\").replace('"', '\\"')
        words.append(f'"{escaped}"' if "$" in word else shlex.quote(word))
    return " ".join(words)
