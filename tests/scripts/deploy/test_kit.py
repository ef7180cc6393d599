"""A kit: keys where they belong, certificates that a TLS client accepts, scripts a shell can read."""

import shutil
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from flwr.supercore.constant import TASK_TYPE_TO_COMMAND

from scripts.deploy.allowed_code import allow_app, allowed_apps
from scripts.deploy.kit.certificates import certificate_names, public_half
from scripts.deploy.kit.kit import Coordinator, KitNode, parse_nodes, read_connection, read_coordinator, write_kit
from scripts.main import main
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
    assert files == {"authority/ca.key", "coordinator/server.key", "coordinator/sign.key", *nodes}
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
    programs = {path.name for path in (kit / "nodes" / "ada" / "bin").iterdir()} - {"flower-supernode"}
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


ODD = ("1", "no", "on", "yes", "007", "0x10", "0o7", "1_000", "1e3", "1E5", "1.5", "null", "True", "2026-01-01", "y")


def test_names_that_yaml_reads_otherwise_stay_names(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """From the command line into the files, and through the check of the kit to what Flower is told."""
    zones = ",".join(reversed(ODD))
    with pytest.raises(SystemExit) as ending:
        main(["deploy", "init", str(tmp_path / "kit"), "--host", "no", "--nodes", ",".join(ODD), "--zones", zones])
    assert ending.value.code == 0
    for name, zone in zip(ODD, reversed(ODD), strict=True):
        settings = load_node_file(tmp_path / "kit" / "nodes" / name / "node.yaml")
        assert (settings.name, settings.zone) == (name, zone)
    coordinator = read_coordinator(tmp_path / "kit")
    assert coordinator.host == "no"
    assert [node.registered for node in coordinator.nodes] == [
        f"{zone}/{name}" for name, zone in zip(ODD, reversed(ODD), strict=True)
    ]
    assert read_connection(tmp_path / "kit" / "nodes" / "1e3").host == "no"


def test_a_name_without_quotes_is_refused_with_the_remedy(kit: Path, tmp_path: Path) -> None:
    for value in ("1", "1e3", "null", "2026-01-01"):
        (tmp_path / "node.yaml").write_text(f"name: {value}\ndata: [data]\n")
        with pytest.raises(ConfigError, match="put it in quotes"):
            load_node_file(tmp_path / "node.yaml")
    (tmp_path / "node.yaml").write_text("name: no\ndata: [data]\n")
    assert load_node_file(tmp_path / "node.yaml").name == "no", "YAML's word for false, where a name is meant"


def test_a_start_script_finds_its_folder_whatever_it_is_called(kit: Path, tmp_path: Path) -> None:
    """A relative call with CDPATH set, and a path with everything that a shell knows."""
    for name, code in (("a b", 3), ("it's $HOME `id` * ü", 3), ('a"b', 2), ("a\\b", 2)):
        folder = tmp_path / name
        shutil.copytree(kit / "nodes" / "ada", folder)
        programs = tmp_path / "venv" / "bin"
        programs.mkdir(parents=True, exist_ok=True)
        for program in ("trfmoe", "flower-supernode", "python"):
            (programs / program).write_text(
                '#!/bin/sh\n[ "$3" = scripts.processes.proxies ] || { printf "%s\\n" "$@" "$HOME"; exit 3; }\n'
            )
            (programs / program).chmod(0o755)
        environment = {"PATH": "/usr/bin:/bin", "TRFMOE_VENV": str(tmp_path / "venv"), "CDPATH": str(tmp_path)}
        command = ["sh", f"{name}/start.sh"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        if code == 3:
            assert f'settings="{folder}/node.yaml"' in done.stdout.splitlines()
            assert done.stdout.splitlines()[-1] == str(folder)  # the home of an account without one
        else:
            assert "quote or a backslash" in done.stderr


def test_a_start_script_names_what_it_misses(kit: Path, tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin"}
    for folder in ("coordinator", "nodes/ada"):
        done = subprocess.run([kit / folder / "start.sh"], env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, "set TRFMOE_VENV" in done.stderr) == (2, True)
