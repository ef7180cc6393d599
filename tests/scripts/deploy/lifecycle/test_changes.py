"""Changes of a kit's files: nodes that join, authorities that overlap; whoever is not in the kit changes nothing."""

import ssl
from pathlib import Path

import pytest

from scripts.deploy.kit.check import check_kit
from scripts.deploy.kit.kit import Coordinator, KitNode, coordinator_folder, read_coordinator, write_kit
from scripts.deploy.lifecycle.authority import authority_folder, begin_authority, finish_authority, renew_server, trust
from scripts.deploy.lifecycle.members import add_node, revoke_node
from scripts.deploy.lifecycle.node_key import make_new_key, replace_key, take_new_key
from scripts.run.simulation import free_port
from tests.scripts.deploy.test_kit import handshake
from trfmoe_core.errors import ConfigError, RunError

HOST = "trfmoe.test"


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    nodes = [KitNode(name="ada"), KitNode(name="bob", zone="south")]
    write_kit(tmp_path / "kit", Coordinator(host=HOST, port=9092, superlink_port=free_port(), nodes=nodes))
    return tmp_path / "kit"


def troubles(folder: Path) -> list[str]:
    return [finding.text for finding in check_kit(folder) if finding.level == "trouble" and finding.kind != "data"]


def test_a_node_that_joins_later_has_what_the_others_have(kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(kit.parent)
    folder, registered = add_node(Path("kit"), KitNode(name="cyd", zone="north"))
    assert (folder, registered) == (kit / "nodes" / "cyd", False)
    names = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    assert names == {str(path.relative_to(kit / "nodes" / "ada")) for path in (kit / "nodes" / "ada").rglob("*")}
    assert [node.registered for node in read_coordinator(kit).nodes] == ["ada", "south/bob", "north/cyd"]
    public = kit / "coordinator" / "keys" / "cyd.pub"
    assert public.read_bytes() == (folder / "node.pub").read_bytes()
    assert str(kit) in (folder / "trfmoe-node.service").read_text()
    with pytest.raises(ConfigError, match="cyd: is a node of this kit already"):
        add_node(kit, KitNode(name="cyd"))
    with pytest.raises(ConfigError, match="is not empty"):
        add_node(kit, KitNode(name="dan"), out=folder)


def test_nothing_changes_without_the_superlink_or_for_a_stranger(kit: Path) -> None:
    before = (kit / "coordinator" / "coordinator.yaml").read_bytes()
    with pytest.raises(ConfigError, match=r"dan: no node of .*it has ada, bob"):
        revoke_node(kit, "dan")
    with pytest.raises(RunError, match="does not answer"):
        revoke_node(kit, "ada")
    public = make_new_key(kit / "nodes" / "ada").read_bytes()
    old = (kit / "coordinator" / "keys" / "ada.pub").read_bytes()
    with pytest.raises(RunError, match="does not answer"):
        replace_key(kit, "ada", public)
    with pytest.raises(ConfigError, match="in use already"):
        replace_key(kit, "ada", old)
    assert (kit / "coordinator" / "coordinator.yaml").read_bytes() == before
    assert (kit / "coordinator" / "keys" / "ada.pub").read_bytes() == old


def test_a_new_key_waits_for_the_coordinator(kit: Path) -> None:
    node = kit / "nodes" / "ada"
    old, public = (node / "node.key").read_bytes(), make_new_key(node).read_bytes()
    assert make_new_key(node).read_bytes() == public, "the operator may have it already"
    assert (node / "next.key").stat().st_mode & 0o777 == 0o600
    assert not take_new_key(node)
    assert (node / "node.key").read_bytes() == old


def test_a_new_server_certificate_is_trusted_and_one_of_a_stranger_is_not_made(kit: Path, tmp_path: Path) -> None:
    folder = coordinator_folder(kit)
    before = (folder / "server.pem").read_bytes()
    renew_server(kit, authority_folder(kit, None))
    assert (folder / "server.pem").read_bytes() != before
    assert handshake(folder, HOST) == ""
    write_kit(tmp_path / "other", Coordinator(host=HOST, port=1, superlink_port=2, nodes=[KitNode(name="ada")]))
    with pytest.raises(ConfigError, match="is not the authority of"):
        renew_server(kit, tmp_path / "other" / "authority")
    with pytest.raises(ConfigError, match=r"no ca\.key in it"):
        authority_folder(tmp_path, None)
    assert handshake(folder, HOST) == ""


def test_old_and_new_authority_overlap(kit: Path, tmp_path: Path) -> None:
    folder, authority, node = coordinator_folder(kit), authority_folder(kit, None), kit / "nodes" / "ada"
    with pytest.raises(ConfigError, match="no change of the authority has begun"):
        finish_authority(kit, authority)
    old = (folder / "ca.crt").read_bytes()
    both = begin_authority(kit, authority)
    with pytest.raises(ConfigError, match="has begun"):
        begin_authority(kit, authority)
    assert handshake(folder, HOST) == "", "the old certificate is still trusted"
    renew_server(kit, authority)
    assert not [text for text in troubles(folder) if "certificate" in text or "ca.crt" in text]
    assert len(trust(node, both)) == 2
    finish_authority(kit, authority)
    assert not (authority / "next").exists()
    assert handshake(folder, HOST) == ""
    new = (folder / "ca.crt").read_bytes()
    for trusted, works in ((old, False), ((node / "ca.crt").read_bytes(), True)):
        (folder / "ca.crt").write_bytes(trusted)
        assert (handshake(folder, HOST) == "") is works
    (folder / "ca.crt").write_bytes(new)
    assert len(trust(node, folder / "ca.crt")) == 1
    with pytest.raises(ConfigError, match="none of the authorities that this node trusts"):
        trust(kit / "nodes" / "bob", folder / "ca.crt")
    assert trust(kit / "nodes" / "bob", folder / "ca.crt", anew=True)
    with pytest.raises(ConfigError, match="no authority's"):
        trust(node, folder / "server.pem")
    ssl.create_default_context(cafile=str(node / "ca.crt"))
