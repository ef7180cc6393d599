"""Runs whose blocks travel in fewer bytes: same rounds, same learning, the same bits after a death."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, MessageType

from server.app import run
from server.run_folder.folder import RunFolder
from server.run_folder.journal import read_events
from strategies.exchange.messages import TrainReply, read_header
from tests.federation import grid_of, of_kind, run_recipe
from tests.strategies.test_tri_redundant import KilledError
from trfmoe_core.config import Recipe

TRANSPORTS: dict[str, dict[str, Any]] = {
    "int8": {"broadcast": "bfloat16", "updates": "int8"},
    "differences": {"broadcast": "bfloat16", "difference": "int8", "updates": "int8"},
    "exact": {"broadcast": "float32", "difference": "bfloat16", "updates": "int4"},
}


DIFFERENCES = TRANSPORTS["differences"]


def bits(events: list[dict[str, Any]]) -> list[float]:
    return [event["bits_per_byte"] for event in of_kind(events, "evaluated")]


@pytest.mark.parametrize("name", TRANSPORTS)
def test_fewer_bytes_learn_as_well(tiny_recipe: Callable[..., Recipe], name: str) -> None:
    plain = run_recipe(tiny_recipe())[1]
    short = run_recipe(tiny_recipe(transport=TRANSPORTS[name]))[1]
    assert bits(short) == pytest.approx(bits(plain), rel=0.003)
    assert [event["outcomes"] for event in of_kind(short, "round_committed")] == [{"unanimous": 9}] * 3
    up = [sum(event["bytes_up"] for event in of_kind(events, "round_committed")) for events in (plain, short)]
    assert up[0] > 3 * up[1]


@pytest.mark.parametrize(
    ("name", "moment"), [("int8", 5), ("differences", 2), ("differences", 5), ("differences", 8), ("exact", 7)]
)
def test_a_run_that_dies_goes_on_bit_by_bit(tiny_recipe: Callable[..., Recipe], name: str, moment: int) -> None:
    recipe = tiny_recipe(transport=TRANSPORTS[name])
    expected = [event["digest"] for event in of_kind(run_recipe(recipe)[1], "round_committed")]
    folder = RunFolder.create(Path(recipe.run_root), recipe)
    count = 0

    def die(_: int, message: Message) -> Message:
        nonlocal count
        count += message.metadata.message_type == MessageType.TRAIN
        if count == moment:
            raise KilledError
        return message

    with pytest.raises(KilledError):
        run(grid_of(folder, die), folder)
    run(grid_of(folder), folder)
    assert [event["digest"] for event in of_kind(read_events(folder.events_path), "round_committed")] == expected
    if TRANSPORTS[name].get("difference") and moment > 3:
        resumed = [event["bytes_down"] for event in of_kind(read_events(folder.events_path), "round_committed")]
        assert max(resumed[1:]) < 0.8 * resumed[0], "nodes that still have the last model get differences"


def test_a_node_that_lost_its_model_gets_the_whole_in_the_same_round(
    tiny_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = tiny_recipe(transport=DIFFERENCES)
    expected = [event["digest"] for event in of_kind(run_recipe(recipe)[1], "round_committed")]

    def lose(node_id: int, message: Message) -> Message:
        if node_id == 3 and message.metadata.message_type == MessageType.TRAIN:
            for file in (tmp_path / "state").rglob("cyd/bases/*"):
                file.unlink()
        return message

    _, events = run_recipe(recipe, lose)
    assert [event["digest"] for event in of_kind(events, "round_committed")] == expected
    warned = [event["text"] for event in of_kind(events, "warning")]
    assert len(warned) == 3
    assert all("cyd has lost" in text for text in warned)
    down = {event["node"]: event["bytes_down"] for event in of_kind(events, "node_reply") if event["round"] == 2}
    assert down["cyd"] > 2 * down["ada"]


def test_a_node_that_always_lacks_its_model_is_sent_the_whole_once_a_round(
    tiny_recipe: Callable[..., Recipe],
) -> None:
    def lack(node_id: int, message: Message) -> Message:
        if node_id != 3 or message.metadata.message_type != MessageType.TRAIN:
            return message
        reply = read_header(message, TrainReply)
        reply = reply.model_copy(update={"lacks_base": reply.round > 1})
        message.content["header"] = ConfigRecord({"json": reply.model_dump_json()})
        return message

    _, events = run_recipe(tiny_recipe(transport=DIFFERENCES), lack)
    dropped = [event for event in of_kind(events, "node_reply") if event["status"] == "dropped"]
    assert [(event["round"], event["node"]) for event in dropped] == [(2, "cyd"), (3, "cyd")]
    assert all("lacks the model" in event["reason"] for event in dropped)
    assert of_kind(events, "run_finished")[0]["outcome"] == "completed"
