"""A refusal that the owner can read already is not written again at each question of the coordinator."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from clients.kept.told import AGAIN_S, TOLD_FILE, is_news
from tests.federation import of_kind, run_recipe
from trfmoe_core.config import Recipe


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "node").mkdir()
    monkeypatch.setenv("TRFMOE_NODE_FILE", str(tmp_path / "node" / "node.yaml"))
    return tmp_path / "node" / TOLD_FILE


def test_the_same_is_news_once_an_hour(kept: Path) -> None:
    assert [is_news(text, 1000.0) for text in ("a", "b", "a", "b")] == [True, True, False, False]
    assert kept.stat().st_mode & 0o777 == 0o600
    assert not is_news("a", 1000.0 + AGAIN_S - 1)
    assert is_news("a", 1000.0 + AGAIN_S)
    assert '"b"' not in kept.read_text()
    assert is_news("a", 10.0), "a clock that was set back does not silence the log"


@pytest.mark.parametrize("broken", [b"", b"[1]", b"\xff", b'{"x": "y"}', b"[" * 99_999])
def test_a_broken_note_silences_nothing(kept: Path, broken: bytes) -> None:
    kept.write_bytes(broken)
    assert is_news("a", 5.0)
    assert not is_news("a", 5.0)


def test_without_a_place_for_the_note_everything_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TRFMOE_NODE_FILE", raising=False)
    assert is_news("a") and is_news("a")
    monkeypatch.setenv("TRFMOE_NODE_FILE", str(tmp_path / "file" / "node.yaml"))
    (tmp_path / "file").write_text("no folder")
    assert is_news("a") and is_news("a")


def test_a_node_that_refuses_every_round_says_so_once(
    kept: Path, tiny_recipe: Callable[..., Recipe], caplog: pytest.LogCaptureFixture
) -> None:
    recipe = tiny_recipe(rounds={"num_rounds": 1, "local_steps": 1, "nodes_deadline_s": 1.0, "reply_deadline_s": 60.0})
    few = {**recipe.nodes[0].limits.model_dump(), "experts": 1}
    nodes = [node.model_dump(mode="json") for node in recipe.nodes]
    nodes.append({**nodes[0], "name": "dan", "limits": few})
    with caplog.at_level(logging.ERROR, logger="trfmoe.node"):
        for _ in range(2):  # as often as it is asked, which a run that lasts does again and again
            _, events = run_recipe(tiny_recipe(nodes=nodes, num_nodes=4, rounds=recipe.rounds.model_dump()))
            assert [event["node"] for event in of_kind(events, "node_refused")] == ["dan"]
    said = [record.getMessage() for record in caplog.records if "limits.experts" in record.getMessage()]
    assert len(said) == 1
    assert said[0].startswith("refused (the coordinator is told: ")
