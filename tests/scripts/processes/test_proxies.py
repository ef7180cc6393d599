"""Whatever the environment calls a proxy: clients can be built, loopback is asked directly, the rest is told."""

import os
import shlex
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from scripts.commands.doctor import proxies as examined
from scripts.deploy.kit.kit import Coordinator, KitNode, write_kit
from scripts.processes import proxies
from scripts.processes.control import Control
from scripts.run import simulation as flower
from scripts.run.simulation import flower_environment, free_port
from trfmoe_core.errors import RunError

USABLE = [
    "http://proxy.test:3128",
    "proxy.test:3128",
    "https://proxy.test",
    "socks5://proxy.test:1080",
    "SOCKS5H://p:1",
]
UNUSABLE = [
    *(
        "socks4://proxy.test:1",
        "socks://proxy.test:1",
        "socks4a://p",
        "ftp://p",
        "quic://p",
        "://",
        "http://",
        "http:/p",
    ),
    *("http://p q", "http://[::1", "http://proxy.test:none", "\x01"),
]


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No variable of the machine's, and none left by a test."""
    monkeypatch.setattr(proxies, "_dropped", {})
    before = dict(os.environ)
    for name in before:
        if name.lower().endswith("_proxy"):
            del os.environ[name]
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize("name", ["ALL_PROXY", "https_proxy", "Http_Proxy"])
def test_what_can_be_used_stays(name: str) -> None:
    for value in USABLE:
        os.environ[name] = value
        assert proxies.mend_environment() == []
        assert os.environ[name] == value
        httpx.Client(verify=False).close()


@pytest.mark.parametrize("value", UNUSABLE)
def test_what_no_client_can_use_is_dropped_and_told(value: str) -> None:
    os.environ.update({"ALL_PROXY": value, "https_proxy": value, "HTTP_PROXY": "http://proxy.test:3128"})
    told = proxies.mend_environment()
    assert len(told) == 2
    assert all("is not used" in line and "\n" not in line for line in told)
    assert proxies.proxies_in_use() == {"HTTP_PROXY": "http://proxy.test:3128"}
    httpx.Client(verify=False).close()
    assert proxies.mend_environment() == []  # told once
    found = list(examined())
    assert [finding.level for finding in found] == ["warning", "warning", "ok"]
    assert all(finding.kind == "reach" for finding in found)


def test_socks_without_its_package_is_dropped_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    os.environ.update({"all_proxy": "socks5h://user:secret@127.0.0.1:9"})
    (line,) = proxies.mend_environment()
    assert "pip install socksio" in line
    assert "secret" not in line
    assert "all_proxy" not in os.environ


def test_exceptions_that_a_client_cannot_read_are_dropped_and_the_others_stay() -> None:
    os.environ.update({"NO_PROXY": "intranet.test,[::1],10.0.0.0/8", "no_proxy": ".corp, fe80::/10,*"})
    told = proxies.mend_environment()
    assert [line.split()[2] for line in told] == ["[::1]", "fe80::/10"]
    assert os.environ["NO_PROXY"] == "intranet.test,10.0.0.0/8,.corp,*,127.0.0.1,localhost,::1"
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"]
    httpx.Client(verify=False).close()


class Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.parametrize("proxy", ["socks5h://127.0.0.1:{}", "http://127.0.0.1:{}", "socks4://127.0.0.1:{}"])
def test_loopback_is_asked_directly(tmp_path: Path, proxy: str) -> None:
    dead = proxy.format(free_port())
    os.environ.update(dict.fromkeys(("ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy", "https_proxy"), dead))
    write_kit(tmp_path / "kit", Coordinator(host="127.0.0.1", port=1, superlink_port=2, nodes=[KitNode(name="n")]))
    folder = tmp_path / "kit" / "coordinator"
    with ThreadingHTTPServer(("127.0.0.1", 0), Healthy) as plain, ThreadingHTTPServer(("127.0.0.1", 0), Healthy) as tls:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(folder / "server.pem", folder / "server.key")
        tls.socket = context.wrap_socket(tls.socket, server_side=True)
        for server in (plain, tls):
            threading.Thread(target=server.serve_forever, daemon=True).start()
        assert flower._healthy(plain.server_address[1])
        assert Control(f"127.0.0.1:{tls.server_address[1]}", folder / "ca.crt").nodes() == {}
        plain.shutdown()
        tls.shutdown()
    with pytest.raises(RunError, match="does not answer"):
        Control(f"127.0.0.1:{free_port()}", folder / "ca.crt").nodes()


def test_what_flower_is_started_with_is_clean(tmp_path: Path) -> None:
    os.environ.update({"all_proxy": "socks://p:1", "https_proxy": "http://proxy.test:3128"})
    environment = flower_environment(tmp_path)
    assert "all_proxy" not in environment
    assert environment["https_proxy"] == "http://proxy.test:3128"  # a node's downloads and W&B's go through it


def test_a_socks_proxy_is_spoken_to() -> None:
    """A client of the hub, or of a coordinator elsewhere, greets the SOCKS proxy."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        os.environ["ALL_PROXY"] = f"socks5h://127.0.0.1:{server.getsockname()[1]}"
        assert proxies.mend_environment() == []
        greeting = []

        def serve() -> None:
            connection, _ = server.accept()
            greeting.append(connection.recv(3))
            connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(proxies.transport_errors()):
            httpx.get("http://coordinator.test/", timeout=5)
        thread.join(5)
    assert greeting == [b"\x05\x01\x00"]


def test_a_start_script_gets_commands_for_its_shell() -> None:
    strange = "http://u:p'$(id)@proxy.test:3128"
    given = {
        "ALL_PROXY": "socks4://p",
        "HTTPS_PROXY": strange,
        "no_proxy": "a'b c,intranet",
        "PATH": os.environ["PATH"],
    }
    script = f'out=$({shlex.quote(sys.executable)} -P -m scripts.processes.proxies); eval "$out"; env'
    done = subprocess.run(["sh", "-euc", script], env=given, capture_output=True, text=True, check=True)
    told = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    assert "ALL_PROXY" not in told
    assert told["HTTPS_PROXY"] == strange
    assert told["NO_PROXY"] == told["no_proxy"] == "a'b c,intranet,127.0.0.1,localhost,::1"
    assert done.stderr.startswith("warning: ALL_PROXY=socks4://p is not used")
