"""A node's owner decides what its node does: a run beyond the limits is refused, a round beyond them is sat out."""

import datetime
from collections.abc import Callable
from typing import Any

import pytest

from clients.limits import OverLimitsError, check_memory, check_round, within_limits
from tests.federation import of_kind, run_recipe
from trfmoe_core.config import NodeSettings, Recipe

NOON, NIGHT = datetime.datetime(2026, 1, 5, 12, 0), datetime.datetime(2026, 1, 5, 23, 30)


def settings(**limits: Any) -> NodeSettings:
    return NodeSettings.model_validate({"name": "ada", "data": ["a", "b"], "limits": limits})


def four(tiny_recipe: Callable[..., Recipe], **limits: Any) -> Recipe:
    """A federation of four in which the first node has limits, so that three remain without it."""
    recipe = tiny_recipe()
    fourth = recipe.nodes[0].model_copy(update={"name": "dee"})
    first = NodeSettings.model_validate({**recipe.nodes[0].model_dump(), "limits": limits})
    return recipe.model_copy(update={"nodes": [first, *recipe.nodes[1:], fourth], "num_nodes": 4})


def test_no_limits_change_nothing(tiny_recipe: Callable[..., Recipe]) -> None:
    assert within_limits(settings(), tiny_recipe()) == settings()
    check_memory(settings(), tiny_recipe(), 320)
    check_round(settings(), ["trunk", "layers.0.experts.1"], NOON)


def test_experts(tiny_recipe: Callable[..., Recipe]) -> None:
    within_limits(settings(experts=8), tiny_recipe())  # two layers of four experts, three times, over three nodes
    with pytest.raises(OverLimitsError, match=r"8 experts on each.*grants 7"):
        within_limits(settings(experts=7), tiny_recipe())
    check_round(settings(experts=1), ["trunk", "layers.0.experts.1"], NOON)
    with pytest.raises(OverLimitsError, match="abstains: 2 experts"):
        check_round(settings(experts=1), ["trunk", "layers.0.experts.1", "layers.1.experts.0"], NOON)


def test_memory_names_both_sizes(tiny_recipe: Callable[..., Recipe]) -> None:
    model = {"layers": 2, "width": 256, "heads": 4, "experts": 16, "top_k": 2, "expert_width": 512, "context": 32}
    recipe = tiny_recipe(model=model)
    parameters = 2 * (16 * 3 * 256 * 512)  # the experts; the trunk is small beside them
    with pytest.raises(OverLimitsError, match="grants 64 MB") as caught:
        check_memory(settings(memory_mb=64), recipe, 320)
    told = int(str(caught.value).split("at least ")[1].split()[0])
    assert parameters * 24 / 2**20 < told < 1.1 * parameters * 24 / 2**20
    check_memory(settings(memory_mb=2 * told), recipe, 320)


@pytest.mark.parametrize(
    ("hours", "noon", "night"),
    [
        ("08:00-18:00", True, False),
        ("20:00-06:00", False, True),
        ("12:00-12:01", True, False),
        ("00:00-12:00", False, False),
    ],
)
def test_hours_may_pass_midnight(hours: str, noon: bool, night: bool) -> None:
    for now, allowed in ((NOON, noon), (NIGHT, night)):
        if allowed:
            check_round(settings(hours=hours), [], now)
        else:
            with pytest.raises(OverLimitsError, match=f"abstains: it is {now:%H:%M} here"):
                check_round(settings(hours=hours), [], now)


def test_data_sets_are_granted_by_run(tiny_recipe: Callable[..., Recipe]) -> None:
    assert within_limits(settings(data_sets={"tiny": ["b"]}), tiny_recipe()).data == ["b"]
    with pytest.raises(OverLimitsError, match="grants no data to a run called tiny"):
        within_limits(settings(data_sets={"other": ["b"]}), tiny_recipe())


@pytest.mark.parametrize(
    ("limits", "words"),
    [({"experts": 2}, "limits.experts"), ({"data_sets": {}}, "limits.data_sets"), ({"memory_mb": 64}, None)],
)
def test_a_refusal_stands_in_both_logs_and_the_run_goes_on(
    tiny_recipe: Callable[..., Recipe], caplog: pytest.LogCaptureFixture, limits: dict[str, Any], words: str | None
) -> None:
    _, events = run_recipe(four(tiny_recipe, **limits))
    refused = of_kind(events, "node_refused")
    if words is None:  # the tiny model fits
        assert refused == []
    else:
        assert [event["node"] for event in refused] == ["ada"]
        assert words in refused[0]["reason"]
        assert words in caplog.text
    assert of_kind(events, "run_finished")[0]["outcome"] == "completed"


def test_a_round_outside_the_hours_is_sat_out(
    tiny_recipe: Callable[..., Recipe], caplog: pytest.LogCaptureFixture
) -> None:
    now = datetime.datetime.now()
    start, end = (now + datetime.timedelta(hours=hours) for hours in (6, 7))
    _, events = run_recipe(four(tiny_recipe, hours=f"{start:%H:%M}-{end:%H:%M}"))
    assert "ada" in {event["node"] for event in of_kind(events, "node_joined")}
    replies = [event for event in of_kind(events, "node_reply") if event["node"] == "ada"]
    assert replies
    assert all(event["status"] in ("dropped", "missing") for event in replies if event.get("phase") != "evaluate")
    assert any("abstains" in event["reason"] and "limits.hours" in event["reason"] for event in replies)
    assert "abstains" in caplog.text
    assert of_kind(events, "run_finished")[0]["outcome"] == "completed"
