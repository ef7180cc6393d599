"""The coordinator's signing key in a kit: made with it, known to every owner, used when a run ends."""

from pathlib import Path

import pytest

from scripts.deploy.following import sign_ended
from scripts.deploy.kit.check import _no_node_keys, _signing_key
from scripts.deploy.kit.kit import SIGNING_KEY, SIGNING_PUBLIC, Coordinator, KitNode, write_kit
from scripts.terminal.output import Output
from server.run_folder.folder import RunFolder
from server.run_folder.journal import Journal
from server.run_folder.signatures import key_text, load_private_key, load_public_key
from server.run_folder.verify import verify_run
from trfmoe_core.config import Recipe


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    nodes = [KitNode(name=name) for name in ("ada", "bob", "cyd")]
    write_kit(tmp_path / "kit", Coordinator(host="trfmoe.test", port=9092, superlink_port=9093, nodes=nodes))
    return tmp_path / "kit"


def test_every_owner_has_the_public_half_of_the_coordinators_key(kit: Path) -> None:
    private = kit / "coordinator" / SIGNING_KEY
    assert private.stat().st_mode & 0o777 == 0o600
    key = key_text(load_private_key(private).public_key())
    places = ["coordinator", "authority", "nodes/ada", "nodes/bob", "nodes/cyd"]
    assert [key_text(load_public_key(kit / place / SIGNING_PUBLIC)) for place in places] == [key] * 5
    assert list(kit.rglob(SIGNING_KEY)) == [private]
    assert list(_no_node_keys(kit / "coordinator")) == []


def test_a_kit_check_sees_a_key_that_is_open_broken_or_missing(kit: Path) -> None:
    key = kit / "coordinator" / SIGNING_KEY
    assert [finding.level for finding in _signing_key(key.parent)] == ["ok"]
    key.chmod(0o644)
    assert "others may read it" in next(_signing_key(key.parent)).text
    key.chmod(0o600)
    key.write_text("-----BEGIN PRIVATE KEY-----\n")
    assert "no private key" in [*_signing_key(key.parent)][-1].text
    key.unlink()
    assert "not signed" in next(_signing_key(key.parent)).text


def test_a_run_that_has_ended_is_signed_and_what_hinders_it_is_said(
    kit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder.create(tmp_path, Recipe())
    sign_ended(folder, kit / "coordinator", Output())
    assert "the journal is not signed" in capsys.readouterr().out
    journal = Journal(folder.events_path)
    journal.append("run_started", run_id="r", recipe_hash=folder.recipe_digest())
    journal.append("run_finished", outcome="failed")
    sign_ended(folder, kit / "coordinator", Output())
    assert "at entry 2" in capsys.readouterr().out
    public = load_public_key(kit / "nodes" / "bob" / SIGNING_PUBLIC)
    assert verify_run(folder, key=public).problems == []
    (kit / "coordinator" / SIGNING_KEY).unlink()
    sign_ended(folder, kit / "coordinator", Output())
    assert "is missing" in capsys.readouterr().out
