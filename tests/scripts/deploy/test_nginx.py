"""The kit's nginx configuration in a real nginx: nodes get through, nothing else does."""

import http.client
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from scripts.deploy.connection_check import port_open
from scripts.deploy.kit.files import NODE_PATHS
from scripts.deploy.kit.kit import Coordinator, KitNode, write_kit
from scripts.run.simulation import free_port

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/sbin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed (apt-get install nginx)")


class Echo(BaseHTTPRequestHandler):
    """Stands for the SuperLink: says which path got through to it, and how many bytes."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        text = f"through {self.path} {len(body)} {self.headers.get('flwr-test')}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST

    def log_message(self, format: str, *args: object) -> None:
        pass


def start_nginx(configuration: Path, folder: Path) -> "subprocess.Popen[bytes]":
    """Starts an nginx of our own with the kit's server block; its files lie in `folder`."""
    main = folder / "main.conf"
    temporary = "".join(
        f'{kind}_temp_path "{folder}/{kind}";' for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    main.write_text(
        f'daemon off; master_process off; pid "{folder}/nginx.pid"; error_log "{folder}/error.log";\n'
        f'events {{}}\nhttp {{ access_log off; {temporary}\ninclude "{configuration}"; }}\n'
    )
    assert NGINX is not None
    return subprocess.Popen([NGINX, "-c", str(main), "-p", str(folder)], stderr=subprocess.DEVNULL)


def await_port(port: int, host: str = "127.0.0.1") -> None:
    for _ in range(200):
        if port_open(host, port):
            return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens on {port}")


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    folder = tmp_path_factory.mktemp("a proxy")
    port, upstream = free_port(), free_port()
    write_kit(
        folder / "kit", Coordinator(host="127.0.0.1", port=port, superlink_port=upstream, nodes=[KitNode(name="n")])
    )
    kit = folder / "kit" / "coordinator"
    server = ThreadingHTTPServer(("127.0.0.1", upstream), Echo)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(kit / "server.pem", kit / "server.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    nginx = start_nginx(kit / "nginx.conf", folder)
    try:
        await_port(port)
        yield port, kit / "ca.crt"
    finally:
        nginx.terminate()
        nginx.wait(10)
        server.shutdown()
        server.server_close()


def ask(proxied: tuple[int, Path], path: str, body: bytes = b"") -> tuple[int, str]:
    port, authority = proxied
    context = ssl.create_default_context(cafile=str(authority))
    client = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)
    client.putrequest("POST", path, skip_host=False)
    client.putheader("Content-Length", str(len(body)))
    client.putheader("flwr-test", "kept")
    client.endheaders(body)
    answer = client.getresponse()
    return answer.status, answer.read().decode()


@pytest.mark.parametrize("name", NODE_PATHS)
def test_what_a_node_calls_gets_through_with_its_headers(proxied: tuple[int, Path], name: str) -> None:
    assert ask(proxied, f"/v1/fleet/{name}") == (200, f"through /v1/fleet/{name} 0 kept")


def test_the_largest_piece_of_an_object_gets_through(proxied: tuple[int, Path]) -> None:
    assert ask(proxied, "/v1/fleet/push-object", bytes(6 << 20)) == (
        200,
        f"through /v1/fleet/push-object {6 << 20} kept",
    )


@pytest.mark.parametrize(
    "path",
    [
        "/v1/control/start-run",
        "/v1/control/list-nodes",
        "/v1/runtime/acquire-task",
        "/v1/fleet/register-node",
        "/v1/fleet/pull-messages/",
        "/v1/fleet/",
        "/health",
        "/docs",
        "/openapi.json",
        "/",
        "//v1/control/start-run",
        "/v1/fleet/../control/start-run",
        "/v1/fleet/pull-messages/../../control/start-run",
        "/v1/fleet/%2e%2e/control/start-run",
        "/v1/fleet/..%2fcontrol/start-run",
        "/V1/FLEET/pull-messages",
        "/v1/control/start-run?/v1/fleet/pull-messages",
        "/v1/fleet/get-fab%0a/v1/control/start-run",
    ],
)
def test_everything_else_is_refused(proxied: tuple[int, Path], path: str) -> None:
    status, text = ask(proxied, path)
    assert status in (400, 403)
    assert "through" not in text


def test_it_does_not_speak_without_tls(proxied: tuple[int, Path]) -> None:
    with socket.create_connection(("127.0.0.1", proxied[0]), timeout=5) as plain:
        plain.sendall(b"POST /v1/fleet/pull-messages HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        assert b"through" not in plain.recv(4096)
