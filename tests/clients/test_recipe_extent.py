"""A recipe that no run needs costs a node neither time nor pages of its log."""

from collections.abc import Callable
from typing import Any

import pytest

from clients import worker
from clients.recipe_extent import check_extent
from clients.refusals import RefusedError
from clients.worker import Worker
from trfmoe_core.config import NodeSettings, Recipe


@pytest.mark.parametrize(
    "part",
    [
        {f"k{number}": 1 for number in range(20_000)},
        {"k" * 1_000_000: 1},
        {"layers": "9" * 1_000_000},
        [[[1] * 100] * 100] * 100,
        {"a": {"b": [{"c": 1}] * 20_000}},
    ],
)
def test_a_recipe_longer_than_any_is_refused_before_it_is_checked(
    tiny_recipe: Callable[..., Recipe], part: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def checked(*_: object) -> None:
        raise AssertionError("it takes time, and an error message as long as the recipe")

    monkeypatch.setattr(worker, "validate", checked)
    sent = {**tiny_recipe().for_nodes().model_dump(mode="json"), "model": part}
    with pytest.raises(RefusedError, match="which no recipe needs") as refused:
        Worker(NodeSettings(name="n", data=["d"]), sent)
    assert refused.value.refusal.code == "recipe"
    assert len(str(refused.value)) < 200


def test_a_recipe_with_every_section_is_far_from_too_long(tiny_recipe: Callable[..., Recipe]) -> None:
    sent = tiny_recipe().for_nodes().model_dump(mode="json")
    check_extent({f"copy {number}": sent for number in range(20)})
