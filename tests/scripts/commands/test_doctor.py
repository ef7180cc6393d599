"""Each usual trouble is found, with its remedy and its exit code."""

import datetime
import email.utils
import json
import shutil
import socket
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
import yaml

from scripts.commands import doctor as doctor_module
from scripts.commands.doctor import disk, examine, gpu, leftovers, node_ports, versions
from scripts.deploy import connection_check as reach
from scripts.deploy.kit.certificates import Pair, node_key_pair, server_certificate
from scripts.deploy.kit.check import check_kit
from scripts.deploy.kit.kit import Coordinator, KitNode, write_kit
from scripts.main import main
from scripts.run.simulation import free_port
from scripts.terminal.findings import EXIT_CODES, Finding, report
from scripts.terminal.output import Output
from trfmoe_core.config import Recipe
from trfmoe_core.errors import ConfigError


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    """A kit whose coordinator is not running, with data for its one node."""
    folder = tmp_path / "kit"
    ports = {"port": free_port(), "superlink_port": free_port()}
    write_kit(folder, Coordinator(host="127.0.0.1", **ports, nodes=[KitNode(name="ada")]))
    (folder / "nodes" / "ada" / "data").mkdir()
    (folder / "nodes" / "ada" / "data" / "a.txt").write_text("text")
    return folder


def troubles(findings: object) -> list[tuple[str, str]]:
    found = [finding for finding in findings if finding.level == "trouble"]  # type: ignore[attr-defined]
    assert all(finding.remedy for finding in found)
    return [(finding.kind, finding.text) for finding in found]


def kinds(folder: Path) -> set[str]:
    return {kind for kind, _ in troubles(check_kit(folder))}


def test_a_fresh_kit_lacks_only_the_owners_consent(kit: Path) -> None:
    assert kinds(kit / "coordinator") == set()
    assert kinds(kit / "nodes" / "ada") == {"apps"}


@pytest.mark.parametrize("name", ["coordinator/server.key", "nodes/ada/node.key", "coordinator/superexec.secret"])
def test_keys_that_others_may_read(kit: Path, name: str) -> None:
    (kit / name).chmod(0o640)
    found = troubles(check_kit(kit))
    assert any(kind == "keys" and "mode 640" in text for kind, text in found)


def test_a_nodes_key_in_the_coordinators_folder(kit: Path) -> None:
    shutil.copy(kit / "nodes" / "ada" / "node.key", kit / "coordinator" / "keys" / "ada")
    assert kinds(kit / "coordinator") == {"keys"}


def test_keys_that_do_not_belong_together(kit: Path) -> None:
    (kit / "nodes" / "ada" / "node.pub").write_bytes(node_key_pair().public)
    assert "keys" in kinds(kit / "nodes" / "ada")


@pytest.mark.parametrize(("days", "hosts"), [(-1, ["127.0.0.1"]), (300, ["elsewhere.test"])])
def test_wrong_certificates(kit: Path, days: int, hosts: list[str]) -> None:
    authority = Pair(
        private=(kit / "authority" / "ca.key").read_bytes(), public=(kit / "authority" / "ca.crt").read_bytes()
    )
    path = kit / "coordinator" / "coordinator.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "host": "trfmoe.test"}))
    server = server_certificate(authority, [*hosts, *(["trfmoe.test"] if days < 0 else [])], days=max(days, 1))
    if days < 0:
        server = server_certificate(authority, ["trfmoe.test"], days=0)
    (kit / "coordinator" / "server.pem").write_bytes(server.public)
    (kit / "coordinator" / "server.key").write_bytes(server.private)
    text = next(text for kind, text in troubles(check_kit(kit / "coordinator")) if kind == "certificate")
    assert ("expired" if days < 0 else "not for trfmoe.test") in text


def test_a_certificate_of_another_authority(kit: Path, tmp_path: Path) -> None:
    nodes = [KitNode(name="x")]
    write_kit(tmp_path / "other", Coordinator(host="127.0.0.1", port=1, superlink_port=2, nodes=nodes))
    shutil.copy(tmp_path / "other" / "coordinator" / "server.pem", kit / "coordinator" / "server.pem")
    assert "certificate" in kinds(kit / "coordinator")


def test_missing_and_empty_data(kit: Path) -> None:
    node = kit / "nodes" / "ada"
    (node / "data" / "a.txt").unlink()
    assert ("data", f"{node / 'data'}: is empty") in troubles(check_kit(node))
    (node / "data").rmdir()
    assert ("data", f"{node / 'data'}: does not exist") in troubles(check_kit(node))


def test_a_port_that_another_program_holds(kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = yaml.safe_load((kit / "coordinator" / "coordinator.yaml").read_text())["superlink_port"]
    with socket.create_server(("127.0.0.1", port)) as server:
        server.settimeout(0.1)
        monkeypatch.setattr(reach, "TIMEOUT_S", 1.0)
        monkeypatch.setenv("TRFMOE_NODE_PORT", str(port))
        assert [kind for kind, _ in troubles(node_ports(kit / "nodes" / "ada"))] == ["port"]
    assert troubles(node_ports(kit / "nodes" / "ada")) == []


def test_a_clock_that_is_wrong() -> None:
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    date = email.utils.format_datetime(now, usegmt=True)
    for seconds, wrong in ((0, False), (4, False), (6, True), (-200, False), (-301, True)):
        found = list(reach.clock_skew(date, now.timestamp() + seconds, "host:1"))
        assert [finding.level for finding in found] == ["trouble" if wrong else "ok"]
    assert list(reach.clock_skew(None, 0.0, "host:1")) == []


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    for free, level in ((100 << 20, "trouble"), (1 << 30, "warning"), (100 << 30, "ok")):
        monkeypatch.setattr(doctor_module.shutil, "disk_usage", lambda path, free=free: usage(0, 0, free))
        assert [finding.level for finding in disk([tmp_path / "not" / "there"])] == [level]


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert [kind for kind, _ in troubles(gpu(Recipe.model_validate({"training": {"device": "cuda"}})))] == ["gpu"]
    assert troubles(gpu(Recipe())) == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert troubles(gpu(Recipe.model_validate({"training": {"device": "cuda"}}))) == []


def test_versions_that_disagree(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata

    assert troubles(versions()) == []
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.40.0" if name == "flwr" else real(name))
    assert troubles(versions()) == [("versions", "flwr 1.40.0, and ==1.41.0 is asked for")]


def test_a_leftover_superlink_is_named(tmp_path: Path) -> None:
    program = tmp_path / "flower-superlink"
    program.write_text("import time\nprint('up', flush=True)\ntime.sleep(60)\n")
    with subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            assert any(f"process {process.pid}" in finding.text for finding in leftovers())
        finally:
            process.kill()


def test_the_command_on_a_recipe(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    nodes = [{"name": name, "data": [str(tmp_path / name)]} for name in "abc"]
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "t.txt").write_text("x")
    recipe.write_text(yaml.safe_dump({"run_root": str(tmp_path), "nodes": nodes}))
    with pytest.raises(SystemExit) as caught:
        main(["doctor", str(recipe), "--json"])
    told = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert caught.value.code == told["exit_code"] == EXIT_CODES["data"]
    wrong = [finding for finding in told["findings"] if finding["level"] == "trouble"]
    assert [finding["kind"] for finding in wrong] == ["data"]
    assert wrong[0]["remedy"]


def test_every_place_where_a_recipe_names_text_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.txt").write_text("x")
    single = {"data": {"sources": ["here.txt", {"path": "gone", "weight": 2.0}, {"source": "fineweb"}]}}
    Path("single.yaml").write_text(yaml.safe_dump(single))
    found = [finding for finding in examine(Path("single.yaml"), []) if finding.kind in ("data", "settings")]
    assert "a run on one machine" in found[0].text
    assert [(finding.level, finding.text) for finding in found[1:]] == [
        ("ok", f"{tmp_path / 'here.txt'}: is there"),
        ("trouble", f"{tmp_path / 'gone'}: does not exist"),
    ]
    assert found[2].remedy == "name a file or folder in single.yaml: data.sources"
    nodes = [{"name": name, "data": [{"path": "gone"}]} for name in "abc"]
    Path("many.yaml").write_text(yaml.safe_dump({"nodes": nodes, "witness": {"data": ["lost"]}}))
    assert [
        finding.remedy.partition(": ")[2] for finding in examine(Path("many.yaml"), []) if finding.kind == "data"
    ] == [
        "witness.data",
        *(f"node {name}: data" for name in "abc"),
    ]


def test_a_folder_that_is_no_kit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="trfmoe deploy init"):
        list(examine(tmp_path, []))


def test_the_first_trouble_decides_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    found = [
        Finding(kind="disk", level="warning", text="w", remedy="r"),
        Finding(kind="gpu", level="trouble", text="t", remedy="r"),
        Finding(kind="clock", level="trouble", text="t", remedy="r"),
    ]
    assert report(found, Output()) == 16
    assert report(found[:1], Output()) == 0
    assert "remedy: r" in capsys.readouterr().out
