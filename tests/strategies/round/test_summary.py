"""A node that says it plays a drill is believed only where the coordinator's own recipe has that drill."""

from collections.abc import Callable
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Message

from server.report.page import render
from server.run_folder.history import RunHistory
from strategies.exchange.messages import TrainReply
from strategies.round.summary import planned_drill, reply_fields
from tests.federation import of_kind, run_recipe
from trfmoe_core.config import DrillConfig, Recipe

LIE = DrillConfig(attack="scale", factor=-9.0, from_round=2, to_round=3)


@pytest.mark.parametrize(
    ("name", "number", "claimed", "believed"),
    [
        ("ada", 2, "scale x-9", "scale x-9"),
        ("ada", 1, "scale x-9", None),
        ("ada", 4, "scale x-9", None),
        ("ada", 2, "zero", None),
        ("ada", 2, "scale x-11", None),
        ("bob", 2, "scale x-9", None),
        ("eve", 2, "scale x-9", None),
        ("ada", 2, None, None),
    ],
)
def test_what_is_believed(
    tiny_recipe: Callable[..., Recipe], name: str, number: int, claimed: str | None, believed: str | None
) -> None:
    recipe = tiny_recipe()
    recipe = recipe.model_copy(update={"nodes": [recipe.nodes[0].model_copy(update={"drill": LIE}), *recipe.nodes[1:]]})
    reply = TrainReply(run_id="r", round=number, epoch=1, base_digest="0" * 64, name=name, drill=claimed)
    fields = reply_fields(reply, planned_drill(recipe, name, number), 1, 1)
    assert fields["drill"] == believed
    assert fields.get("claims_drill") == (claimed if claimed and not believed else None)


def test_a_liar_that_calls_itself_a_drill_is_outvoted_and_named_like_any_other(
    tiny_recipe: Callable[..., Recipe],
) -> None:
    def excuse(node_id: int, message: Message) -> Message:
        header = message.content.get("header")
        if node_id == 2 and isinstance(header, ConfigRecord) and '"training":{' in str(header["json"]):
            header["json"] = str(header["json"]).replace('"drill":null', '"drill":"label_flip"')
        return message

    _, events = run_recipe(tiny_recipe(), excuse)
    replies = [event for event in of_kind(events, "node_reply") if event["status"] == "accepted"]
    claims = {event["node"] for event in replies if event.get("claims_drill") == "label_flip"}
    assert claims == {"bob"} and not any(event["drill"] for event in replies)
    history = RunHistory(events)
    assert history.drill_rounds() == {} and history.claims() == {"bob": [1, 2, 3]}
    page = render(history, Path("run"))
    assert "claims a drill: bob" in page and "told to misbehave, as a drill, in" not in page
