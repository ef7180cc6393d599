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
    (waits,) = of_kind(read_events(folder.events_path), "waiting")
    assert waits["text"].startswith("the run waits for 1 connected node (starts or prepares its data), at most until ")
    assert waits["text"].endswith("(rounds.preparing_deadline_s); 2 of 3 nodes are ready (ada, bob)")
    (late,) = of_kind(read_events(folder.events_path), "warning")
    assert "1 connected node (still starts or prepares its data, or hangs: the node's log says which)" in late["text"]


def test_the_words() -> None:
    assert awaited(["ada"], 0, 0, late=False) == "ada (starts or prepares its data)"
    assert awaited(["ada", "bob"], 2, 2, late=False) == (
        "ada, bob, 2 connected nodes (start or prepare their data) and 2 nodes that are not connected yet"
    )
    assert awaited([], 3, 0, late=True) == (
        "3 connected nodes (still start or prepare their data, or hang: the node's log says which)"
    )
    assert awaited([], 0, 1, late=True) == "1 node that is not connected"
    assert "refused" in awaited([], 0, 0, late=True)
    assert unnamed(["ada"], 1) == "ada, 1 node without a key" and unnamed([], 0) == ""
    assert until(3585.0, datetime.datetime(2026, 1, 31, 13, 35, 25)) == "until 14:35:10, in 0:59:45"
