"""The sentence about a SuperNode that ended, from Flower's own log lines and the coordinator's answer."""

from pathlib import Path

import pytest

from scripts.deploy.kit import Coordinator, KitNode, write_kit
from scripts.deploy.lifecycle import endings
from scripts.deploy.lifecycle.endings import ending

NOT_ACTIVATED = """\x1b[91mERROR \x1b[0m:     Exit Code: 305
Failed to initialize the connection to the SuperLink.
[code: 2004] Failed to activate SuperNode.
The SuperNode could not establish a connection to the SuperLink.
"""
PORT_TAKEN = """[Errno 98] error while attempting to bind on address ('127.0.0.1', 9094): address already in use
RuntimeError: SuperNode Runtime HTTP API failed to start.
"""
BAD_KEY = "\x1b[91mERROR \x1b[0m:     Exit Code: 302\nThe private key is not valid.\n"


@pytest.fixture
def node(tmp_path: Path) -> Path:
    write_kit(tmp_path / "kit", Coordinator(host="h.test", port=1, superlink_port=2, nodes=[KitNode(name="ada")]))
    return tmp_path / "kit" / "nodes" / "ada"


@pytest.mark.parametrize(
    ("answer", "code", "says", "again"),
    [
        ("known", 1, "counts this node's last session as online for up to 60 s", True),
        ("unknown", 1, "was revoked or never registered", False),
        ("unknown", 0, "was revoked or never registered", False),
        ("refused", 1, "set the clocks of both machines right", False),
        ("away", 1, "the coordinator at h.test:1 is not reached", True),
        ("known", 0, "somebody asked it to end", False),
    ],
)
def test_the_coordinator_says_why_a_key_did_not_get_in(
    node: Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, says: str, again: bool
) -> None:
    monkeypatch.setattr(endings, "registration", lambda *_: (answer, ""))
    found = ending(node, code, NOT_ACTIVATED if code else "")
    assert says in found.reason
    assert (found.again_s is not None) is again


def test_other_ends_are_told_without_asking(node: Path) -> None:
    assert "killed by SIGKILL, as the system does when memory runs out" in ending(node, -9, "").reason
    assert ending(node, 1, BAD_KEY).reason == "Flower's exit code 302: The private key is not valid."
    assert ending(node, 3, "Segmentation fault").reason == "exit code 3"
    assert "port 9094 of this machine is in use" in ending(node, 1, PORT_TAKEN).reason
    (node / "node.key").write_text("no key")
    assert "the node's folder cannot be read" in ending(node, 1, NOT_ACTIVATED).reason
