"""A kit: keys where they belong, certificates that a TLS client accepts, scripts a shell can read."""

import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from flwr.supercore.constant import TASK_TYPE_TO_COMMAND

from scripts.allowed import allow_app, allowed_apps
from scripts.certificates import certificate_names, public_half
from scripts.kit import Coordinator, KitNode, parse_nodes, read_coordinator, write_kit
from trfmoe_core.config import load_node_file
from trfmoe_core.errors import ConfigError

NODES = [KitNode(name="ada", zone="north"), KitNode(name="bob"), KitNode(name="cyd", zone="south")]


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("a kit") / "kit"
    write_kit(folder, Coordinator(host="trfmoe.test", port=9092, superlink_port=9093, nodes=NODES))
    return folder


def private_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()]


def test_private_keys_are_the_owners_alone(kit: Path) -> None:
    files = {str(path.relative_to(kit)) for path in private_files(kit)}
    nodes = {f"nodes/{node.name}/node.key" for node in NODES}
    assert files == {"authority/ca.key", "coordinator/server.key", *nodes}
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in private_files(kit))
    assert (kit / "coordinator" / "superexec.secret").stat().st_mode & 0o777 == 0o600


def test_key_pairs_belong_together(kit: Path) -> None:
    for node in NODES:
        private = (kit / "nodes" / node.name / "node.key").read_bytes()
        assert (kit / "coordinator" / "keys" / f"{node.name}.pub").read_bytes().strip() == public_half(private)


def test_the_certificate_is_good_for_its_names_and_no_other(kit: Path) -> None:
    folder = kit / "coordinator"
    certificate = x509.load_pem_x509_certificate((folder / "server.pem").read_bytes())
    assert certificate_names(certificate) == ["trfmoe.test", "localhost", "127.0.0.1"]
    assert handshake(folder, "trfmoe.test") == ""
    assert handshake(folder, "127.0.0.1") == ""
    assert "doesn't match" in handshake(folder, "elsewhere.test") or "mismatch" in handshake(folder, "elsewhere.test")


def handshake(folder: Path, name: str) -> str:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "server.pem", folder / "server.key")
    client = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    here, there = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(there, server_side=True).close()
        except (ssl.SSLError, OSError):
            there.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        client.wrap_socket(here, server_hostname=name).close()
        return ""
    except ssl.SSLCertVerificationError as error:
        return str(error)
    finally:
        here.close()
        thread.join()


def test_every_program_that_a_supernode_could_start_is_replaced(kit: Path) -> None:
    programs = {path.name for path in (kit / "nodes" / "ada" / "bin").iterdir()}
    assert programs == set(TASK_TYPE_TO_COMMAND.values())
    for name in programs - {"flwr-clientapp"}:
        done = subprocess.run([kit / "nodes" / "ada" / "bin" / name], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr.split(":")[0]) == (1, "refused")


def test_scripts_are_shell_and_settings_are_settings(kit: Path) -> None:
    scripts = [*kit.rglob("start.sh"), *(kit / "nodes" / "ada" / "bin").iterdir()]
    for path in scripts:
        assert path.stat().st_mode & 0o777 == 0o755
        subprocess.run(["sh", "-n", path], check=True)
    for node in NODES:
        settings = load_node_file(kit / "nodes" / node.name / "node.yaml")
        assert (settings.name, settings.zone) == (node.name, node.zone)
    assert read_coordinator(kit).nodes == NODES
    assert yaml.safe_load((kit / "nodes" / "bob" / "connection.yaml").read_text()) == {
        "host": "trfmoe.test",
        "port": 9092,
    }


def test_a_kit_is_never_overwritten(kit: Path) -> None:
    with pytest.raises(ConfigError, match="not empty"):
        write_kit(kit, Coordinator(host="x", port=1, superlink_port=2, nodes=NODES))


def test_allowed_apps(kit: Path) -> None:
    folder = kit / "nodes" / "cyd"
    assert allowed_apps(folder / "allowed_apps.txt") == []
    assert allow_app(folder, "a" * 64, "the first")
    assert not allow_app(folder, "a" * 64, "again")
    assert allow_app(folder, "b" * 64, "the second")
    assert [app.digest for app in allowed_apps(folder / "allowed_apps.txt")] == ["a" * 64, "b" * 64]


def test_nodes_of_the_command_line() -> None:
    assert [node.registered for node in parse_nodes("a, b", "x,y")] == ["x/a", "y/b"]
    assert [node.registered for node in parse_nodes("a,b", "")] == ["a", "b"]
    for names, zones in (("", ""), ("a,a", ""), ("a,b", "x"), ("a b", "")):
        with pytest.raises(ConfigError):
            parse_nodes(names, zones)


def test_a_start_script_names_what_it_misses(kit: Path, tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin"}
    for folder in ("coordinator", "nodes/ada"):
        done = subprocess.run([kit / folder / "start.sh"], env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, "set TRFMOE_VENV" in done.stderr) == (2, True)
