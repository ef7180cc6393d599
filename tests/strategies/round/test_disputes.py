"""Disputes: of two nodes that contradict each other, the one that does good counts soon, and nearly always."""

import json

import pytest

from strategies.round.disputes import FIRST_WAIT, Disputes

PAIR = ("b", "c")
GOOD, BAD = 0.1, 0.02


def play(disputes: Disputes, rounds: int, liar: str, told: float = 0.0, fall: float = 1.0) -> list[str]:
    """Plays a dispute in every round, and returns who was left out.

    Args:
        disputes: They go on.
        rounds: How many.
        liar: The node of the pair that does little good.
        told: The liar's own lie about its loss.
        fall: Factor by which the worth of a round falls from one to the next.
    """
    left_out: list[str] = []
    loss, scale = 5.0, 1.0
    disputes.measure({"a": loss, "b": loss, "c": loss})
    for _ in range(rounds):
        left_out += disputes.leave_out([PAIR], ["a"], 99)
        loss -= scale * (BAD if left_out[-1] != liar else GOOD)
        scale *= fall
        disputes.measure({"a": loss, "b": loss, "c": loss} | {liar: told})
    return left_out


def rounds_of(liar: str, left_out: list[str]) -> list[int]:
    """Returns the rounds, from 1, in which the liar counted."""
    return [number for number, name in enumerate(left_out, 1) if name != liar]


@pytest.mark.parametrize("fall", [1.0, 0.7, 0.3])
@pytest.mark.parametrize("told", [0.0, 100.0, float("nan")])
def test_the_liar_counts_in_few_trials_whatever_its_name_and_however_losses_fall(told: float, fall: float) -> None:
    assert rounds_of("c", play(Disputes(), 50, "c", told, fall)) == [2, 8, 18, 36]
    assert rounds_of("b", play(Disputes(), 50, "b", told, fall)) == [1, 3, 8, 18, 36]
    assert FIRST_WAIT == 4


def test_a_node_that_becomes_good_is_ahead_after_its_next_trial() -> None:
    disputes = Disputes()
    assert rounds_of("c", play(disputes, 7, "c")) == [2]
    assert rounds_of("b", play(disputes, 6, "b")) == [2], "the trial of c is due, then b is compared with it"


def test_who_is_contradicted_by_several_begins_behind() -> None:
    disputes = Disputes()
    disputes.measure({"d": 5.0})
    assert disputes.leave_out([("a", "b"), ("a", "c")], ["d", "e"], 99) == ["a", "a"]


def test_the_state_goes_on_where_it_was() -> None:
    straight = Disputes()
    expected = play(straight, 20, "c")
    for stop in range(1, 20):
        first = Disputes()
        found = play(first, stop, "c")
        resumed = Disputes(json.loads(json.dumps(first.state())))
        assert found + play(resumed, 20 - stop, "c") == expected
        assert resumed.state()["pairs"].keys() == straight.state()["pairs"].keys()


def test_a_round_that_no_judge_has_measured_decides_nothing() -> None:
    disputes = Disputes()
    disputes.measure({"b": 5.0, "c": 5.0})
    for _ in range(5):
        assert disputes.leave_out([PAIR], ["a"], 99) == ["c"]
        disputes.measure({"b": 0.0, "c": 9.0})


def test_there_is_no_trial_near_the_end() -> None:
    for rounds_left, left_out in ((FIRST_WAIT, "b"), (FIRST_WAIT - 1, "c")):
        disputes = Disputes()
        play(disputes, 1, "c")
        assert disputes.leave_out([PAIR], ["a"], rounds_left) == [left_out]


def test_without_a_pair_everybody_counts() -> None:
    disputes = Disputes()
    disputes.measure({"a": 5.0})
    assert disputes.leave_out([], ["a", "b", "c"], 99) == []
    disputes.measure({"a": 4.0})
    assert disputes.state()["pairs"] == {}
