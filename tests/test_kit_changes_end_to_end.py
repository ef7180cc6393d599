"""A kit that changes while it runs, on real processes: nodes join, get new keys, allow a release, are revoked."""

import contextlib
import io
import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from scripts.deploy.kit.kit import Coordinator, KitNode, write_kit
from scripts.deploy.lifecycle.members import open_control
from scripts.main import main
from scripts.run.simulation import free_port
from tests.conftest import words
from tests.test_kit_end_to_end import BIN, Scripts, lives

PROGRAM = "scripts.deploy.prompt_supernode"

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(" " in str(BIN), reason="start scripts refuse a virtual environment below a path with a space"),
]


def trfmoe(*arguments: str | Path, cwd: Path, expect: int = 0) -> dict[str, Any]:
    """Runs a command in this process, whose imports are paid for, and returns its JSON."""
    told = io.StringIO()
    with contextlib.chdir(cwd), contextlib.redirect_stdout(told), pytest.raises(SystemExit) as ending:
        main([*map(str, arguments), "--json"])
    assert ending.value.code == expect, told.getvalue()
    found: dict[str, Any] = json.loads(told.getvalue().strip().splitlines()[-1])
    return found


class Place:
    """A kit whose coordinator is running, and the hosts of its nodes."""

    def __init__(self, folder: Path, scripts: Scripts) -> None:
        self.folder = folder
        self.scripts = scripts
        self.kit = folder / "kit"
        self.coordinator = self.kit / "coordinator"

    def host(self, name: str, allows: bool = True) -> psutil.Popen:
        """Carries a node's folder to its host, and starts it there."""
        folder = self.folder / "hosts" / name
        shutil.move(self.kit / "nodes" / name, folder)
        (folder / "data").mkdir()
        (folder / "data" / "text.txt").write_text(words(len(name), 4000))
        if allows:
            trfmoe("deploy", "allow", folder, cwd=self.folder)
        return self.start(name)

    def start(self, name: str) -> psutil.Popen:
        return self.scripts.start(self.folder / "hosts" / name / "start.sh", TRFMOE_NODE_PORT=str(free_port()))

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def state(self, name: str) -> str:
        return open_control(self.coordinator).nodes()[name].status

    def key_state(self, name: str) -> str:
        return open_control(self.coordinator).state_of((self.folder / "hosts" / name / "node.pub").read_bytes())


def until(true: Callable[[], Any], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    port = free_port()
    nodes = [KitNode(name="ada")]
    write_kit(tmp_path / "kit", Coordinator(host="127.0.0.1", port=port, superlink_port=port, nodes=nodes))
    place = Place(tmp_path, Scripts(tmp_path))
    place.scripts.start(place.coordinator / "start.sh")
    yield place
    left = place.scripts.stop()
    assert not left, left


def test_a_node_gets_a_new_key_and_is_revoked(place: Place) -> None:
    trfmoe("deploy", "register", "kit", cwd=place.folder)
    ada = place.host("ada")
    until(lambda: place.state("ada") == "online")
    public = trfmoe("node", "rotate", "hosts/ada", cwd=place.folder)["public_key"]
    trfmoe("deploy", "rotate", "kit", "--node", "ada", "--key", public, cwd=place.folder)
    until(lambda: place.key_state("ada") == "online")
    assert not (place.folder / "hosts" / "ada" / "next.key").exists()
    assert place.log("ada").count("the coordinator has revoked this node's old key and knows its new one") == 1
    trfmoe("deploy", "add-node", "kit", "bob", cwd=place.folder)
    trfmoe("deploy", "revoke", "kit", "ada", cwd=place.folder)
    assert ada.wait(60) == 1
    last = place.log("ada").rstrip().splitlines()[-1]
    assert "does not know this node's key: it was revoked" in last
    assert {name: place.state(name) for name in ("ada", "bob")} == {"ada": "unregistered", "bob": "registered"}


@pytest.mark.slow
def test_an_upgrade_names_the_owners_who_have_not_allowed_it(place: Place) -> None:
    trfmoe("deploy", "register", "kit", cwd=place.folder)
    for name in ("bob", "cyd"):
        assert trfmoe("deploy", "add-node", "kit", name, cwd=place.folder)["registered"]
    place.host("ada")
    place.host("bob", allows=False)
    until(lambda: place.state("ada") == place.state("bob") == "online")
    told = trfmoe("deploy", "upgrade", "kit", cwd=place.folder, expect=1)
    assert {node["node"]: node["answer"] for node in told["nodes"]} == {
        "ada": "allows",
        "bob": "refuses",
        "cyd": "offline",
    }
    refusals = [line for line in place.log("bob").splitlines() if "has not allowed the app" in line]
    assert len(refusals) == 1
    assert "Traceback" not in place.log("bob")
    trfmoe("deploy", "allow", place.folder / "hosts" / "bob", "--only", cwd=place.folder)
    assert trfmoe("deploy", "upgrade", "kit", cwd=place.folder, expect=1)["missing"] == ["cyd"]


@pytest.mark.slow
def test_a_supernode_that_was_killed_waits_for_its_old_session(place: Place) -> None:
    trfmoe("deploy", "register", "kit", cwd=place.folder)
    ada = place.host("ada")
    until(lambda: place.state("ada") == "online")
    family = ada.children(recursive=True)
    (supernode,) = (process for process in family if PROGRAM in process.cmdline()[:3])
    supernode.send_signal(signal.SIGKILL)
    assert ada.wait(30) != 0
    assert "the SuperNode ended: killed by SIGKILL" in place.log("ada")
    assert not [process for process in family if lives(process)]
    place.start("ada")
    until(lambda: "counts this node's last session as online" in place.log("ada"))
    until(lambda: place.log("ada").count("SuperNode ID") == 2, 120)


@pytest.mark.slow
def test_the_server_and_the_authority_get_new_certificates_with_an_overlap(place: Place) -> None:
    trfmoe("deploy", "register", "kit", cwd=place.folder)
    ada = place.host("ada")
    until(lambda: place.state("ada") == "online")
    before = (place.coordinator / "server.pem").read_bytes()
    trfmoe("deploy", "rotate", "kit", "--server", cwd=place.folder)
    assert (place.coordinator / "server.pem").read_bytes() != before
    trfmoe("deploy", "register", "kit", cwd=place.folder)
    trfmoe("deploy", "rotate", "kit", "--authority", "begin", cwd=place.folder)
    told = trfmoe("node", "trust", "hosts/ada", "kit/coordinator/ca.crt", cwd=place.folder)
    assert len(told["fingerprints"]) == 2
    trfmoe("deploy", "rotate", "kit", "--authority", "finish", cwd=place.folder)
    trfmoe("deploy", "register", "kit", cwd=place.folder)  # waits for the SuperLink, and trusts the new one alone
    until(lambda: place.log("ada").count("SuperNode ID") == 2, 150)  # nobody has started it again
    assert ada.is_running()
    assert trfmoe("deploy", "upgrade", "kit", cwd=place.folder)["missing"] == []
    told = trfmoe("node", "trust", "hosts/ada", "kit/coordinator/ca.crt", cwd=place.folder)
    assert len(told["fingerprints"]) == 1
