"""What code may run on a node: listed with its history, replaced in one step, taken back by hash."""

import json
import re
from pathlib import Path

import pytest

from scripts.deploy.allowed_code import ALLOWED_FILE, allowed_apps
from scripts.deploy.kit.files import NO_APPS
from scripts.deploy.node_clientapp import RefusedError, refuse_unknown
from scripts.main import main
from scripts.processes.control import app_hash
from scripts.run.simulation import app_folder

OLD, OTHER = "ab" * 32, "ac" * 32


@pytest.fixture
def node(tmp_path: Path) -> Path:
    (tmp_path / "node.yaml").write_text("name: ada\ndata: [data]\n")
    (tmp_path / ALLOWED_FILE).write_text(f"{NO_APPS}# mine: {OTHER}\n{OLD}  # /opt/old\n{OTHER}\n")
    (tmp_path / ALLOWED_FILE).chmod(0o640)
    return tmp_path


def trfmoe(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> dict[str, object]:
    with pytest.raises(SystemExit) as ended:
        main(["deploy", *map(str, arguments), "--json"])
    assert ended.value.code == code
    told: dict[str, object] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return told


def digests(node: Path) -> list[str]:
    # As the node's own program reads the file.
    return re.findall(r"^[0-9a-f]{64}\b", (node / ALLOWED_FILE).read_text(), re.MULTILINE)


def test_list_names_what_is_installed_here(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = app_hash(app_folder())
    before = (node / ALLOWED_FILE).read_text()
    told = trfmoe(capsys, "allow", node, "--list")
    assert told["apps"] == [
        {"app": OLD, "note": "/opt/old", "installed": False},
        {"app": OTHER, "note": "", "installed": False},
    ]
    assert (node / ALLOWED_FILE).read_text() == before
    trfmoe(capsys, "allow", node)
    apps = trfmoe(capsys, "allow", node, "--list")["apps"]
    assert isinstance(apps, list)
    assert apps[-1]["installed"] and apps[-1]["app"] == mine
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ trfmoe .*, /", apps[-1]["note"])
    assert digests(node) == [OLD, OTHER, mine]


def test_only_drops_all_others_and_keeps_what_the_owner_wrote(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = trfmoe(capsys, "allow", node, "--only")
    assert told["new"] and told["dropped"] == [OLD, OTHER]
    assert digests(node) == [app_hash(app_folder())]
    assert f"# mine: {OTHER}" in (node / ALLOWED_FILE).read_text()
    assert (node / ALLOWED_FILE).stat().st_mode & 0o777 == 0o640
    assert trfmoe(capsys, "allow", node, "--only", "--app", OLD)["dropped"] == [app_hash(app_folder())]
    assert digests(node) == [OLD]
    trfmoe(capsys, "allow", node, "--list", "--only", code=2)


def test_disallow_by_hash_beginning_or_release(
    node: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trfmoe(capsys, "allow", node)
    assert trfmoe(capsys, "disallow", node, OLD[:8])["apps"] == [OLD]
    assert trfmoe(capsys, "disallow", node)["apps"] == [app_hash(app_folder())]
    assert digests(node) == [OTHER]
    monkeypatch.chdir(node)
    assert trfmoe(capsys, "disallow", OTHER)["apps"] == [OTHER]
    assert trfmoe(capsys, "disallow", OTHER)["apps"] == []
    assert digests(node) == [] and [app.digest for app in allowed_apps(node / ALLOWED_FILE)] == []


@pytest.mark.parametrize("wrong", [["abcd"], ["ABCDEF12"], ["0" * 65], ["nowhere"]])
def test_disallow_refuses_what_it_cannot_mean(node: Path, capsys: pytest.CaptureFixture[str], wrong: list[str]) -> None:
    trfmoe(capsys, "disallow", node, *wrong, code=2)
    assert digests(node) == [OLD, OTHER]


def test_a_beginning_of_two_is_refused(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (node / ALLOWED_FILE).write_text(f"{'ab' * 31}00\n{'ab' * 31}01\n")
    trfmoe(capsys, "disallow", node, "ab" * 6, code=2)
    assert len(digests(node)) == 2


def test_what_is_disallowed_is_refused_at_the_next_message(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import hashlib

    digest = hashlib.sha256(b"code").hexdigest()
    trfmoe(capsys, "allow", node, "--app", digest)
    refuse_unknown(b"code", node / ALLOWED_FILE)
    trfmoe(capsys, "disallow", node, digest)
    with pytest.raises(RefusedError, match="has not allowed"):
        refuse_unknown(b"code", node / ALLOWED_FILE)
