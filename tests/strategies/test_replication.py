"""Runs whose experts are held by five nodes: two that lie are outvoted, and the rules of three hold for five."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import words
from tests.federation import of_kind, run_recipe
from trfmoe_core.config import Recipe
from trfmoe_core.errors import RunError

NAMES = ("ada", "bob", "cyd", "dan", "eve", "fay", "gus")


def recipe_of(make: Callable[..., Recipe], names: tuple[str, ...], drills: dict[str, Any], **changes: Any) -> Recipe:
    texts = Path(make().run_root).parent / "texts"
    nodes = []
    for number, name in enumerate(names):
        path = texts / f"{name}.txt"
        path.write_text(words(number, 4000))
        node = {"name": name, "data": [str(path)], "state_dir": str(texts.parent / "state")}
        nodes.append(node | ({"drill": drills[name]} if name in drills else {}))
    return make(nodes=nodes, experts={"replication": 5}, agreement={"cosine": 0.0}, **changes).resolved(texts)


def test_two_liars_of_five_replicas_are_outvoted_wherever_they_sit(tiny_recipe: Callable[..., Recipe]) -> None:
    lie = {"attack": "sign_flip", "from_round": 2}
    rounds = {"num_rounds": 3, "local_steps": 8, "nodes_deadline_s": 1.0, "reply_deadline_s": 60.0}
    _, events = run_recipe(recipe_of(tiny_recipe, NAMES, {"eve": lie, "gus": lie}, rounds=rounds))
    (placement,) = of_kind(events, "placement")
    assert placement["replication"] == 5
    experts = {block: names for block, names in placement["holders"].items() if block != "trunk"}
    assert {len(set(names)) for names in experts.values()} == {5}
    assert placement["load_max"] - placement["load_min"] <= 1
    verdicts = [event["verdicts"] for event in of_kind(events, "verdicts")]
    assert all(verdict["outvoted"] == [] for verdict in verdicts[0])
    for verdict in verdicts[1] + verdicts[2]:
        present = sorted({"eve", "gus"} & set(verdict["accepted"] + verdict["outvoted"]))
        assert verdict["outvoted"] == present, verdict
    both = Counter(len(verdict["outvoted"]) for verdict in verdicts[2])
    assert both[2] > 1, "some experts have both liars among their five"
    assert of_kind(events, "run_finished")[0]["outcome"] == "completed"
    bits = [event["bits_per_byte"] for event in of_kind(events, "evaluated")]
    assert bits[3] < bits[1]


def test_five_nodes_keep_their_seats_and_fewer_do_not_start(tiny_recipe: Callable[..., Recipe]) -> None:
    rounds = {"num_rounds": 3, "local_steps": 4, "nodes_deadline_s": 1.0, "reply_deadline_s": 60.0}
    reputation = {"strikes": 1, "cool_off_rounds": 1}
    recipe = recipe_of(tiny_recipe, NAMES[:5], {"eve": {"attack": "nan"}}, rounds=rounds, reputation=reputation)
    _, events = run_recipe(recipe)
    assert [event["node"] for event in of_kind(events, "node_suspect")] == ["eve"]
    assert not of_kind(events, "node_quarantined")
    assert {tuple(v["accepted"]) for e in of_kind(events, "verdicts") for v in e["verdicts"]} == {NAMES[:4]}
    unreadable = recipe.nodes[4].model_copy(update={"data": ["/nowhere"]})
    with pytest.raises(RunError, match=r"4 of 5 nodes can take part .* every expert needs 5"):
        run_recipe(recipe.model_copy(update={"nodes": [*recipe.nodes[:4], unreadable]}))
