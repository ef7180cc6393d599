"""What a node notes of its own rounds is what the coordinator recorded of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from clients.kept.own_rounds import own_runs
from tests.federation import of_kind, run_recipe
from trfmoe_core.config import Recipe


def test_the_notes_of_a_node_agree_with_the_journal(tiny_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = tiny_recipe(transport={"difference": "bfloat16"})
    raw = recipe.model_dump(mode="json")
    raw["nodes"][2]["drill"] = {"attack": "scale", "factor": -10.0, "from_round": 2}
    _, events = run_recipe(Recipe.model_validate(raw))
    runs = {name: own_runs(tmp_path / "state", name) for name in ("ada", "bob", "cyd")}
    for name, (run,) in runs.items():
        replies: list[dict[str, Any]] = [event for event in of_kind(events, "node_reply") if event["node"] == name]
        assert run.rounds == {reply["round"] for reply in replies} == {1, 2, 3}
        assert run.loss == [reply["loss"] for reply in replies][-1]
        sent = sum(reply["bytes_up"] for reply in replies)
        assert sent < run.bytes < sent + 20_000, "the updates, and besides them only numbers"
        evaluated = of_kind(events, "evaluated")[-1]
        assert run.bits_per_byte == evaluated["nodes"][name]["bits_per_byte"]
    verdicts = {event["round"]: event["verdicts"] for event in of_kind(events, "verdicts")}
    lost = {number: sum("cyd" in each["outvoted"] for each in verdicts[number]) for number in verdicts}
    assert runs["cyd"][0].outvoted == {number: count for number, count in lost.items() if count}
    assert set(runs["cyd"][0].outvoted) == {2, 3}
    assert not list((tmp_path / "state").glob("*/*/bases/*")), "the models are not needed after the end"
