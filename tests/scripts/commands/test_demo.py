"""The demo succeeds only when every one of its promises was kept."""

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.commands.demo import judge_demo
from scripts.run.federated_run import announce, resolve
from server.run_folder.history import RunHistory
from tests.scripts.journal import events
from trfmoe_core.config import Recipe
from trfmoe_core.errors import ConfigError

DRILL = {"attack": "scale", "factor": -10.0, "from_round": 2}
RECIPE = Recipe.model_validate(
    {
        "nodes": [
            {"name": "alice", "data": ["x"]},
            {"name": "bob", "data": ["x"]},
            {"name": "carol", "data": ["x"], "drill": DRILL},
        ]
    }
)


def failed(made: list[dict[str, Any]], text: str = "some text") -> list[str]:
    return [promise for promise, kept, _ in judge_demo(RECIPE, RunHistory(made), text) if not kept]


def test_all_promises_kept() -> None:
    assert failed(events()) == []
    assert announce(RECIPE) == ["drill: carol is told to lie (it multiplies its updates by -10) from round 2 on"]


def test_a_round_in_which_the_liar_got_away() -> None:
    made = events()
    for event in made:
        if event["event"] == "verdicts" and event["round"] == 3:
            for verdict in event["verdicts"]:
                verdict["outvoted"] = []
    assert failed(made) == ["carol, told to lie, was outvoted in every round in which it lied"]


def test_an_honest_node_named_in_a_drill_round() -> None:
    made = events()
    for event in made:
        if event["event"] == "verdicts" and event["round"] == 3:
            event["verdicts"][0]["outvoted"] = ["bob", "carol"]
    assert failed(made) == ["no honest node was outvoted in those rounds"]


def test_no_lie_no_fall_no_text() -> None:
    assert "carol, told to lie, was outvoted in every round in which it lied" in failed(events(lie_from=9))
    made = events()
    for event in made:
        if event["event"] == "evaluated" and event["round"] == 3:
            event["bits_per_byte"] = 7.0
            event["nodes"]["bob"]["bits_per_byte"] = 7.0
    assert failed(made, " \n") == [
        "held-out bits per byte kept falling in spite of the lie",
        "bob: better than a bigram model of its own text on its own held-out text",
        "the trained model generated a text",
    ]


def test_an_empty_run_fails_every_promise_without_an_error() -> None:
    assert len(failed([], "")) >= 3


def test_a_recipe_that_names_no_attack_is_refused_before_anything_starts(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    nodes = [{"name": name, "data": ["x"]} for name in "ab"]
    recipe.write_text(json.dumps({"nodes": [*nodes, {"name": "c", "data": ["x"], "drill": {"attack": "sing"}}]}))
    with pytest.raises(ConfigError, match=r"r\.yaml: nodes\.2\.drill\.attack: 'sing' is unknown; choose one of"):
        resolve(recipe, [], [])
    assert resolve(recipe, ["nodes.2.drill.attack=nan"], []).nodes[2].drill is not None
