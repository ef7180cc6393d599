from statistics import median_high

import pytest
from hypothesis import given
from hypothesis import strategies as some

from strategies.round.ranked import Ranked

STEPS = some.lists(some.tuples(some.sampled_from("abcdef"), some.none() | some.integers(0, 5)), max_size=30)


@given(STEPS)
def test_the_median_without_a_name_is_that_of_the_others(steps: list[tuple[str, int | None]]) -> None:
    ranked, values = Ranked(), dict[str, float]()
    for name, value in steps:
        if value is None:
            ranked.drop(name)
            values.pop(name, None)
        else:
            ranked.put(name, value)
            values[name] = value
    for name in "abcdefg":
        others = [value for other, value in values.items() if other != name]
        assert ranked.count_without(name) == len(others)
        if others:
            assert ranked.median_high_without(name) == median_high(others)
        else:
            with pytest.raises(IndexError):
                ranked.median_high_without(name)
