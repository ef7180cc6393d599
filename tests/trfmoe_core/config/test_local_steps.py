"""The schedule of local steps: which round has how many, and how many come before it."""

from itertools import accumulate
from typing import Any

import pytest

from trfmoe_core.config import Recipe
from trfmoe_core.config.federation import RoundsConfig
from trfmoe_core.config.load import apply_overrides, validate
from trfmoe_core.errors import ConfigError


@pytest.mark.parametrize("given", [7, {1: 3}, {1: 10, 6: 25}, {1: 25, 2: 1, 3: 4, 9: 2}])
def test_sums_are_those_of_the_rounds_one_by_one(given: Any) -> None:
    rounds = RoundsConfig.model_validate({"local_steps": given, "num_rounds": 12})
    plan = {1: given} if isinstance(given, int) else given
    each = [plan[max(first for first in plan if first <= number)] for number in range(1, 13)]
    ends = [0, *accumulate(each)]
    assert [rounds.steps_in(number) for number in range(1, 13)] == each
    assert [rounds.steps_before(number) for number in range(1, 14)] == ends
    assert rounds.total_steps == sum(each)
    assert rounds.fewest_steps == min(each)
    assert [rounds.most_steps_until(number) for number in range(1, 13)] == list(accumulate(each, max))
    for steps in range(sum(each)):
        assert rounds.rounds_of(steps) == next(n for n, end in enumerate(ends) if end >= steps)
        assert rounds.end_after(steps) == next(end for end in ends if end > steps)
    assert rounds.end_after(-1) == 0


def test_a_stretch_after_the_last_round_does_not_count() -> None:
    rounds = RoundsConfig.model_validate({"local_steps": {1: 10, 4: 1}, "num_rounds": 3})
    assert (rounds.fewest_steps, rounds.total_steps) == (10, 30)
    assert rounds.steps_text == "10 steps, 1 from round 4 on"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, r"rounds\.local_steps: the rounds \(none\): the first has to be round 1"),
        ({2: 10}, r"rounds\.local_steps: the rounds 2: the first has to be round 1, and none may come twice"),
        ({1: 10, "1": 11}, "none may come twice"),
        ({1: 0}, "'0' as its steps; give a whole number from 1 to 1,000,000"),
        ({1: 10, 0: 3}, "'0' as a round; give a whole number"),
        ({1: True}, "'True' as its steps"),
        ({1: [5]}, r"'\[5\]' as its steps"),
        ({1: 2, "third": 5}, "'third' as a round"),
        (0, r"rounds\.local_steps: 0 is not allowed; give 1 or more or give keys and values"),
        ([[1, 10]], "give a whole number or give keys and values"),
    ],
)
def test_what_is_no_schedule_is_refused_with_the_remedy(given: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        validate(Recipe, {"rounds": {"local_steps": given}}, "x.yaml")


def test_the_command_line_gives_a_schedule_and_changes_one() -> None:
    raw = apply_overrides({}, ["rounds.local_steps={1: 10, 6: 25}", "rounds.local_steps.6=30"])
    assert validate(Recipe, raw, "x.yaml").rounds.local_steps == {1: 10, 6: 30}
