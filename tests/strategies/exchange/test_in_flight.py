"""Waiting, with a clock of the test's own: deadlines, quorum, late replies, nodes that come and go."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import MessageType

from clients.app import app as client_app
from scripts.experiments.in_process import InProcessGrid
from server.app import run
from server.run_folder.folder import RunFolder
from server.run_folder.journal import read_events
from strategies.exchange.in_flight import Clock
from tests.federation import of_kind
from trfmoe_core.config import Recipe


class SlowGrid(InProcessGrid):
    """Replies are there only after `delay(node, kind)` seconds of the test's clock; nodes are online by `online`."""

    def __init__(
        self,
        folder: RunFolder,
        delay: Callable[[int, str], float],
        online: Callable[[int, float], bool] = lambda node, now: True,
    ) -> None:
        configs = [{"partition-id": number} for number in range(len(folder.recipe.nodes))]
        super().__init__(
            client_app,
            configs,
            {"recipe": str(folder.path / "recipe.yaml")},
            latency_s=lambda node, message: delay(node, message.metadata.message_type),
            now=lambda: self.time,
        )
        self.time = 0.0
        self.clock = Clock(now=lambda: self.time, sleep=self._sleep)
        self._online = online

    def _sleep(self, seconds: float) -> None:
        self.time += seconds

    def get_node_ids(self) -> Iterable[int]:
        return [node for node in super().get_node_ids() if self._online(node, self.time)]


def recipe_for(make: Callable[..., Recipe], **rounds: Any) -> Recipe:
    return make(rounds={"num_rounds": 4, "local_steps": 1, **rounds})


def play(recipe: Recipe, *arguments: Any) -> tuple[list[dict[str, Any]], SlowGrid]:
    folder = RunFolder.create(Path(recipe.run_root), recipe)
    grid = SlowGrid(folder, *arguments)
    run(grid, folder, grid.clock)
    return read_events(folder.events_path), grid


def one_slow(node: int, kind: str) -> float:
    return 0.0 if kind == MessageType.QUERY else 100.0 if node == 3 else 10.0


def even(node: int, kind: str) -> float:
    return 0.0 if kind == MessageType.QUERY else 10.0


def test_a_slow_node_does_not_hold_a_quorum_and_its_late_reply_is_recorded(
    tiny_recipe: Callable[..., Recipe],
) -> None:
    events, _ = play(recipe_for(tiny_recipe, num_rounds=12, wait="quorum"), one_slow)
    committed = of_kind(events, "round_committed")
    assert len(committed) == 12
    assert committed[0]["seconds"] <= 3.1 * 10.2, "nobody knows yet that it is so slow"
    assert all(event["seconds"] <= 1.3 * 10.2 for event in committed[1:])
    assert all(event["outcomes"] == {"majority": 9} for event in committed)
    replies = [event for event in of_kind(events, "node_reply") if event["node"] == "cyd"]
    late = [event for event in replies if event["status"] == "late"]
    assert [event["round"] for event in late] == [1]
    assert any("still at work on round 1" in str(event["reason"]) for event in replies)
    assert all(event["status"] != "accepted" for event in replies)
    assert [event["node"] for event in of_kind(events, "node_suspect")] == ["cyd"]


def test_waiting_for_all_waits_for_the_slow_one(tiny_recipe: Callable[..., Recipe]) -> None:
    events, _ = play(recipe_for(tiny_recipe, num_rounds=2, reply_deadline_s=200.0), one_slow)
    assert all(100 <= event["seconds"] <= 101 for event in of_kind(events, "round_committed"))
    assert all(event["outcomes"] == {"unanimous": 9} for event in of_kind(events, "round_committed"))


@pytest.mark.parametrize("wait", ["all", "quorum"])
def test_a_steadily_slow_node_is_counted_and_the_last_model_is_measured_by_all(
    tiny_recipe: Callable[..., Recipe], wait: str
) -> None:
    def slower(node: int, kind: str) -> float:
        return 0.0 if kind == MessageType.QUERY else 15.0 if node == 3 else 10.0

    events, _ = play(recipe_for(tiny_recipe, num_rounds=8, wait=wait), slower)
    assert [event["outcomes"] for event in of_kind(events, "round_committed")] == [{"unanimous": 9}] * 8
    assert not of_kind(events, "node_suspect")
    assert [len(event["nodes"]) for event in of_kind(events, "evaluated")] == [3] * 9


def test_a_node_that_takes_an_hour_costs_no_hour(tiny_recipe: Callable[..., Recipe]) -> None:
    def hour(node: int, kind: str) -> float:
        return 0.0 if kind == MessageType.QUERY else 3590.0 if node == 3 else 10.0

    events, grid = play(recipe_for(tiny_recipe, num_rounds=5), hour)
    assert [round(event["seconds"] / 10.2, 1) for event in of_kind(events, "round_committed")] == [3.0, 1, 1, 1, 1]
    assert grid.time < 100
    missing = [e["reason"] for e in of_kind(events, "node_reply") if e["node"] == "cyd" and e["status"] == "missing"]
    assert "rounds.patience" in missing[0]
    assert [event["node"] for event in of_kind(events, "node_suspect")] == ["cyd"]


def test_a_deadline_ends_every_wait_and_names_its_setting(tiny_recipe: Callable[..., Recipe]) -> None:
    events, grid = play(recipe_for(tiny_recipe, num_rounds=2, reply_deadline_s=30.0), one_slow)
    assert grid.time < 130
    missing = [event for event in of_kind(events, "node_reply") if event["status"] == "missing"]
    assert "rounds.reply_deadline_s" in missing[0]["reason"]
    assert of_kind(events, "run_finished")[0]["outcome"] == "completed"


def test_a_node_that_vanishes_is_missed_and_one_left_waits_for_the_others(
    tiny_recipe: Callable[..., Recipe],
) -> None:
    def online(node: int, now: float) -> bool:
        return node == 1 or (node == 2 and not 15 < now < 60) or (node == 3 and now < 5)

    events, grid = play(recipe_for(tiny_recipe, nodes_deadline_s=100.0), even, online)
    assert of_kind(events, "run_finished")[0]["outcome"] == "completed"
    assert grid.time > 60
    assert "1 of 3 nodes are online (ada); waiting up to 100 s" in of_kind(events, "warning")[0]["text"]
    gone = [event for event in of_kind(events, "node_reply") if event["node"] == "cyd" and event["round"] > 1]
    assert all(event["reason"] == "not online when the round began" for event in gone)


def test_a_node_that_comes_later_gets_work_in_the_next_round(tiny_recipe: Callable[..., Recipe]) -> None:
    recipe = recipe_for(tiny_recipe)
    extra = recipe.nodes[0].model_copy(update={"name": "dan"})
    recipe = recipe.model_copy(update={"nodes": [*recipe.nodes, extra]})
    recipe = Recipe.model_validate(recipe.model_dump(mode="json") | {"num_nodes": 4})
    rounds = recipe.rounds.model_copy(update={"nodes_deadline_s": 3.0})
    recipe = recipe.model_copy(update={"rounds": rounds})
    events, _ = play(recipe, even, lambda node, now: node != 4 or now > 8)
    placements = of_kind(events, "placement")
    assert [event["reason"] for event in placements] == ["start", "dan joined"]
    assert all("dan" not in names for names in placements[0]["holders"].values())
    assert sum("dan" in names for names in placements[1]["holders"].values()) == 1 + 6
    assert any(e["node"] == "dan" and e["status"] == "accepted" for e in of_kind(events, "node_reply"))
