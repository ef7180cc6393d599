"""A node that lost what it owes is used again; one that answers nothing is named, and the rounds go on without it."""

import math
from collections.abc import Callable
from typing import Any

from flwr.app import MessageType

from strategies.exchange.in_flight import Clock, Pending
from strategies.membership.lost_requests import PATIENCE_S, Pings
from tests.federation import of_kind
from tests.strategies.exchange.test_in_flight import play, recipe_for
from trfmoe_core.config import Recipe


def silent_once(ping_answered: bool) -> Callable[[int, str], float]:
    """Node 3 never answers its first training; whether it answers pings is up to the test."""
    asked = {"train": 0}

    def delay(node: int, kind: str) -> float:
        if node != 3 or kind == MessageType.QUERY:
            return 10.0 if kind == MessageType.TRAIN else 0.0
        if kind == "query.ping":
            return 0.0 if ping_answered else math.inf
        asked["train"] += kind == MessageType.TRAIN
        return 10.0 if asked["train"] > 1 else math.inf

    return delay


def statuses(events: list[dict[str, Any]], number: int) -> set[str]:
    return {
        event["status"]
        for event in of_kind(events, "node_reply")
        if event["node"] == "cyd" and event["round"] == number
    }


def test_a_node_that_lost_its_message_is_used_again(tiny_recipe: Callable[..., Recipe]) -> None:
    events, _ = play(recipe_for(tiny_recipe, wait="quorum"), silent_once(ping_answered=True))
    assert [statuses(events, number) for number in (1, 2)] == [{"missing"}, {"missing"}]  # asked in 2, heard in 3
    assert statuses(events, 3) == {"accepted"}
    assert not [event for event in of_kind(events, "warning") if "wedged" in event["text"]]


def test_a_wedged_node_is_named_once_and_the_rounds_go_on(tiny_recipe: Callable[..., Recipe]) -> None:
    recipe = recipe_for(tiny_recipe, wait="quorum", num_rounds=16)
    events, grid = play(recipe, silent_once(ping_answered=False))
    assert of_kind(events, "run_finished")[0]["outcome"] == "completed"
    assert len(of_kind(events, "round_committed")) == 16
    told = [event["text"] for event in of_kind(events, "warning") if "wedged" in event["text"]]
    assert grid.time > PATIENCE_S
    assert len(told) == 1
    assert "cyd" in told[0]
    assert "round 1" in told[0]


def test_nothing_is_asked_of_nodes_that_owe_nothing() -> None:
    class NoGrid:
        def push_messages(self, messages: object) -> list[str]:
            raise AssertionError("a ping was sent")

    pings = Pings(lambda kind, **fields: None, Clock())
    assert pings.freed(NoGrid(), {}) == set()  # type: ignore[arg-type]


def test_a_ping_that_flower_refuses_is_tried_again() -> None:
    sent: list[object] = []

    class Refusing:
        def push_messages(self, messages: list[object]) -> list[str]:
            sent.extend(messages)
            return []

        def pull_messages(self, ids: list[str]) -> list[object]:
            return []

    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    pings = Pings(lambda kind, **fields: None, Clock())
    for _ in range(2):
        assert pings.freed(Refusing(), {"a": Pending(node="a", node_id=7, round=3)}) == set()  # type: ignore[arg-type]
    assert len(sent) == 2
