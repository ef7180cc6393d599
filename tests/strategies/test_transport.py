"""Runs whose blocks travel in fewer bytes: same rounds, same learning, the same bits after a death."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message, MessageType

from server.app import run
from server.events import read_events
from server.run_folder import RunFolder
from tests.federation import grid_of, of_kind, run_recipe
from tests.strategies.test_tri_redundant import KilledError
from trfmoe_core.config import Recipe

TRANSPORTS: dict[str, dict[str, Any]] = {
    "int8": {"broadcast": "bfloat16", "updates": "int8"},
}


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


@pytest.mark.parametrize("name", TRANSPORTS)
@pytest.mark.parametrize("moment", [2, 5, 8])
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
