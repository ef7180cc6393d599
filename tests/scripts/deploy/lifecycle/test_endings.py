"""The sentence about a SuperNode that ended, from Flower's own log lines and the coordinator's answer."""

import signal
from pathlib import Path

import pytest

from scripts.deploy.kit.kit import Coordinator, KitNode, write_kit
from scripts.deploy.lifecycle import endings, supernode
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


HANGS = "\x1b[91mERROR \x1b[0m:     SSL/TLS handshake error detected.\n[SSL: CERTIFICATE_VERIFY_FAILED] self-signed\n"


@pytest.mark.parametrize(
    ("details", "says"),
    [
        ("[SSL: CERTIFICATE_VERIFY_FAILED] unable to get local issuer certificate", "does not trust; ask the operator"),
        ("[SSL: UNEXPECTED_EOF_WHILE_READING] EOF occurred", "the encrypted connection to the coordinator broke"),
    ],
)
def test_a_broken_handshake_passes(node: Path, monkeypatch: pytest.MonkeyPatch, details: str, says: str) -> None:
    monkeypatch.setattr(endings, "registration", lambda *_: ("away", details))
    for code in (0, -15):
        found = ending(node, code, HANGS)
        assert says in found.reason
        assert found.again_s is not None


STAND_IN = """#!/bin/sh
echo start >> starts
if grep -q new ca.crt; then exit 3; fi
echo "ERROR: SSL/TLS handshake error detected."
exec sleep 600
"""


def test_a_supernode_that_hangs_after_a_handshake_starts_again_when_the_node_trusts_the_coordinator(
    node: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Flower's SuperNode works on nothing after it, and does not end either."""
    monkeypatch.chdir(node)
    (node / "flower").write_text(STAND_IN)
    (node / "ca.crt").write_text("old")
    (node / "flower").chmod(0o755)
    looks = iter(range(100))

    def answer(*_: object) -> tuple[str, str]:
        if next(looks) == 5:
            (node / "ca.crt").write_text("new")
        trusts = (node / "ca.crt").read_text() == "new"
        return ("known", "") if trusts else ("away", "[SSL: CERTIFICATE_VERIFY_FAILED] unknown authority")

    monkeypatch.setattr(endings, "registration", answer)
    monkeypatch.setattr(endings, "AGAIN_S", 0.05)
    monkeypatch.setattr(supernode, "AGAIN_S", 0.05)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        kept = supernode.SuperNode(node, ["./flower"])
        monkeypatch.setattr(kept, "_prctl", None)  # this process has children of other tests
        monkeypatch.setattr(supernode, "kill_children", lambda: None)
        code = kept.keep()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert code == 3
    assert (node / "starts").read_text() == "start\n" * 2, "not once more while the certificate is the same"
    told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("trfmoe: ")]
    assert told[0].endswith(f"trfmoe node trust {node} ca.crt --anew; it starts again by itself then")
    assert told[1] == "trfmoe: the SuperNode ended: exit code 3"
    assert len(told) == 2
