"""The best round is never one that a single node has chosen, whatever it claims and whoever is away."""

import json
import math
from collections.abc import Mapping
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.round.best_round import BestRound, robust

CLAIMS = [0.0, 1e-9, 0.5, 2.0, 3.0, 1e6, math.inf, math.nan, -1.0]


def best_of(rounds: Mapping[int, Mapping[str, float]], fewest: int = 2) -> int | None:
    """The best of the rounds from 1 on, with a resume after each."""
    best = BestRound(fewest)
    for number, measured in rounds.items():
        best.tell(number, measured, candidate=number > 0)
        best = BestRound(fewest, json.loads(json.dumps(best.state())))
    return best.round


@pytest.mark.parametrize(
    ("values", "expected"),
    [([2.0], 2.0), ([2.0, 0.0], 2.0), ([2.0, 2.5], 2.5), ([2.0, 0.0, 2.5], 2.0), ([0.0, 1.0, 2.0, 3.0], 2.0)],
)
def test_the_worse_of_two_and_the_median_of_more(values: list[float], expected: float) -> None:
    assert robust(values) == robust(reversed(values)) == expected


@pytest.mark.parametrize("claim", [math.nan, math.inf, -math.inf, -1.0, 1e300])
def test_what_is_no_number_is_the_worst(claim: float) -> None:
    assert robust([claim]) == 1e6
    assert best_of({1: {"a": 1.0, "b": 1.0}, 2: {"a": claim, "b": 0.9}}) == 1


def test_one_alone_is_no_evidence_but_where_the_machine_is_trusted() -> None:
    assert best_of({1: {"a": 2.0}, 2: {"a": 1.0}}) is None
    assert best_of({1: {"a": 2.0}, 2: {"a": 1.0}, 3: {"a": 1.5}}, fewest=1) == 2
    assert best_of({1: {"a": 2.0, "b": 2.0}, 2: {"a": 0.0}, 3: {}}) == 1
    assert best_of({1: {"a": 0.0}, 2: {"a": 2.0, "b": 2.0}}) == 2
    assert best_of({}) is None


def test_rounds_that_other_nodes_measured_are_compared_by_all() -> None:
    first = {"a": 3.0, "b": 3.1}
    for second, expected in [
        ({"b": 3.2, "c": 0.0}, 1),
        ({"b": 3.0, "c": 3.5}, 1),
        ({"b": 3.0, "c": 2.9}, 2),
        ({"c": 2.0, "d": 2.1}, 2),
        ({"c": 0.0, "d": 3.3}, 1),
    ]:
        assert best_of({1: first, 2: second}) == expected, second


@settings(max_examples=300, deadline=None)
@given(st.data(), st.integers(2, 8), st.integers(2, 6))
def test_a_liar_never_decides_where_all_others_agree(data: st.DataObject, num_honest: int, num_rounds: int) -> None:
    """Honest owners have texts of very different difficulty, and agree on which of two models is better."""
    quality = data.draw(st.permutations(range(num_rounds)))
    levels = data.draw(st.lists(st.floats(0.5, 5.0), min_size=num_honest, max_size=num_honest))
    rounds = {}
    for number, rank in enumerate(quality, 1):
        measured = {f"n{i}": level * (1 + 0.1 * rank) for i, level in enumerate(levels)}
        rounds[number] = {**measured, "liar": data.draw(st.sampled_from(CLAIMS))}
    assert best_of(rounds) == 1 + quality.index(0)


@pytest.mark.parametrize("first", [0, 1], ids=["measured from the start", "one was away from the start"])
def test_with_one_of_three_away_a_liar_can_only_talk_the_round_at_hand_down(first: int) -> None:
    honest = {0: (6.0, 8.0), 1: (5.0, 7.0), 2: (3.0, 5.5), 3: (2.0, 4.0), 4: (2.5, 4.5)}
    for away, claims in product(range(1, 5), product([0.0, 3.0, 1e6], repeat=4)):
        rounds = {
            number: {"a": easy, "liar": (3.0, *claims)[number], **({} if number == away else {"b": hard})}
            for number, (easy, hard) in honest.items()
            if number >= first
        }
        assert best_of(rounds) == 3 or (away == 3 and best_of(rounds) == 4), (away, claims)
