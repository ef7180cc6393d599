"""What a release writes into a kit follows the release and the folder; what people filled in stays."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from scripts.deploy.kit.check import check_kit
from scripts.deploy.kit.kit import Coordinator, KitNode, write_kit
from scripts.main import main


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    nodes = [KitNode(name="ada"), KitNode(name="bob")]
    write_kit(tmp_path / "kit", Coordinator(host="127.0.0.1", port=1, superlink_port=2, nodes=nodes))
    return tmp_path / "kit"


def trfmoe(capsys: pytest.CaptureFixture[str], *given: object) -> dict[str, Any]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([*map(str, given), "--json"])
    assert ended.value.code == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def settings_findings(folder: Path) -> list[tuple[str, str, str]]:
    return [
        (found.level, found.text, found.remedy)
        for found in check_kit(folder)
        if found.kind == "settings" and "node.yaml" not in found.text
    ]


def test_a_kit_as_it_was_written_is_as_it_should_be(kit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert [level for level, _, _ in settings_findings(kit)] == ["ok"] * 3
    assert trfmoe(capsys, "deploy", "refresh", kit)["written"] == []


def test_a_folder_that_moved_is_named_by_the_check_and_mended_by_its_remedy(
    kit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate(("coordinator", "nodes/ada")):
        moved = tmp_path / "a new place" / str(number)
        shutil.copytree(kit / name, moved)
        ((level, text, remedy),) = settings_findings(moved)
        assert (level, f" {kit / name}, and the folder is {moved}" in text) == ("warning", True)
        command = remedy.partition("anew: ")[2]
        assert command == f"trfmoe deploy refresh {moved}"
        written = [Path(path).name for path in trfmoe(capsys, "deploy", "refresh", moved)["written"]]
        assert (
            written
            == [["nginx.conf", "trfmoe-superlink.service", "trfmoe-superexec.service"], ["trfmoe-node.service"]][number]
        )
        assert [level for level, _, _ in settings_findings(moved)] == ["ok"]
        assert not [path for path in moved.rglob("*") if path.is_file() and str(kit).encode() in path.read_bytes()]
        assert not list(moved.rglob("*.old")), "nobody has changed anything"


def test_accounts_stay_and_what_was_changed_by_hand_is_kept_aside(
    kit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = kit / "nodes" / "ada"
    unit, start = folder / "trfmoe-node.service", folder / "start.sh"
    filled = unit.read_text().replace("User=trfmoe", "User=ada").replace("RestartSec=10", "RestartSec=99")
    unit.write_text(filled.replace("Environment=TRFMOE_VENV=/opt", "Environment=A=1\nEnvironment=TRFMOE_VENV=/srv"))
    start.write_text("#!/bin/sh\necho an earlier release\n")
    (folder / "bin" / "flwr-model").unlink()
    ((level, text, remedy),) = settings_findings(folder)
    assert (level, remedy) == ("warning", f"trfmoe deploy refresh {folder}")
    assert "start.sh, trfmoe-node.service, bin/flwr-model" in text
    running = start.open()
    trfmoe(capsys, "deploy", "refresh", folder)
    assert "an earlier release" in running.read(), "a shell that reads the script goes on reading it"
    lines = unit.read_text().splitlines()
    assert {"User=ada", "Environment=A=1", "RestartSec=10"} <= set(lines)
    assert "RestartSec=99" in (folder / "trfmoe-node.service.old").read_text()
    assert "an earlier release" in (folder / "start.sh.old").read_text()
    assert start.stat().st_mode & 0o777 == 0o755
    assert [level for level, _, _ in settings_findings(folder)] == ["ok"]


def test_the_owner_who_allows_a_release_gets_its_start_script(kit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = kit / "nodes" / "bob"
    (folder / "start.sh").write_text("#!/bin/sh\necho an earlier release\n")
    before = (folder / "trfmoe-node.service").read_text()
    assert trfmoe(capsys, "deploy", "allow", folder, "--only")["written"] == [str(folder / "start.sh")]
    assert "lifecycle.supernode" in (folder / "start.sh").read_text()
    assert (folder / "trfmoe-node.service").read_text() == before
    assert trfmoe(capsys, "deploy", "allow", folder, "--app", "0" * 64)["written"] == []


def test_a_kit_for_other_hosts_keeps_its_prefix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "kit"
    write_kit(folder, Coordinator(host="h", port=1, superlink_port=2, nodes=[KitNode(name="ada")]), "/opt/trfmoe")
    assert trfmoe(capsys, "deploy", "refresh", folder, "--prefix", "/opt/trfmoe")["written"] == []
    unit = folder / "nodes" / "ada" / "trfmoe-node.service"
    assert trfmoe(capsys, "deploy", "allow", unit.parent)["written"] == [str(unit)], "the owner has put it there"
    trfmoe(capsys, "deploy", "refresh", folder, "--prefix", "/srv/50%")
    assert 'ReadWritePaths="/srv/50%%/node"' in (folder / "nodes" / "ada" / "trfmoe-node.service").read_text()
    assert 'ssl_certificate "/srv/50%/coordinator/server.pem"' in (folder / "coordinator" / "nginx.conf").read_text()
    assert trfmoe(capsys, "deploy", "refresh", folder, "--prefix", "/srv/50%")["written"] == []


def test_settings_that_are_not_finished_do_not_hinder_the_owner(kit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = kit / "nodes" / "bob"
    (folder / "node.yaml").write_text("name: bob\nlimts: {}\n")
    with pytest.raises(SystemExit) as ended:
        main(["deploy", "allow", str(folder)])
    told = capsys.readouterr()
    assert (ended.value.code, "may run from now on" in told.out) == (0, True)
    assert "start.sh was not brought up to date" in told.err
