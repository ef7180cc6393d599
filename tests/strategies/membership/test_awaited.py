"""Whoever is waited for at the start is named, and the recipe says how long the wait may last."""

import datetime
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import MessageType

from server.run_folder.folder import RunFolder
from server.run_folder.journal import read_events
from strategies.membership.awaited import awaited, unnamed, until
from tests.federation import of_kind
from tests.strategies.exchange.test_in_flight import play, recipe_for
from trfmoe_core.config import Recipe
from trfmoe_core.errors import RunError


def third_never_says(node: int, kind: str) -> float:
    return math.inf if node == 3 and kind.startswith(MessageType.QUERY) else 1.0


@pytest.mark.parametrize(("rounds", "waited_s"), [({}, 3600), ({"preparing_deadline_s": 40.0}, 40)])
def test_the_recipe_says_how_long_a_needed_node_is_waited_for(
    tiny_recipe: Callable[..., Recipe], rounds: dict[str, Any], waited_s: int
) -> None:
    recipe = recipe_for(tiny_recipe, nodes_deadline_s=20.0, reply_deadline_s=None, **rounds)
    with pytest.raises(RunError, match=rf"2 of 3 nodes can take part \(ada, bob\) after {waited_s} s"):
        play(recipe, third_never_says)
    folder = RunFolder.latest(Path(recipe.run_root), recipe.name)
    assert folder is not None
    warnings = [event["text"] for event in of_kind(read_events(folder.events_path), "warning")]
    assert [
        text
        for text in warnings
        if "the run waits for 1 node that is connected and has not said its name yet (starting, prep" in text
        and "rounds.prep" in text
    ]


def test_the_words() -> None:
    assert awaited(["ada"], 0, 0).startswith("ada (connected; prepares its data")
    assert awaited(["ada", "bob"], 0, 2).startswith("ada, bob (connected; prepare their data")
    assert awaited(["ada"], 0, 2).endswith(" and 2 that are not connected")
    assert awaited([], 0, 1) == "1 that is not connected"
    assert awaited(["ada"], 2, 0).endswith(
        "and 2 nodes that are connected and have not said their name yet (starting, "
        "preparing data, or hanging: the node's log says which)"
    )
    assert "refused" in awaited([], 0, 0)
    assert unnamed(["ada"], 1) == "ada, 1 node without a key" and unnamed([], 0) == ""
    assert until(3585.0, datetime.datetime(2026, 1, 31, 13, 35, 25)) == "until 14:35:10, in 0:59:45"
