"""Disputes: of two nodes that contradict each other, the one that does good counts soon, and nearly always."""

import json

import pytest

from strategies.round.disputes import FIRST_WAIT, Disputes

PAIR = ("b", "c")
GOOD, BAD = 0.1, 0.02


def play(disputes: Disputes, rounds: int, liar: str, loss: float = 5.0, told: float = 0.0) -> list[str]:
    """Plays a dispute in every round, and returns who was left out; `told` is the liar's own lie about its loss."""
    left_out = []
    disputes.measure({"a": loss, "b": loss, "c": loss})
    for _ in range(rounds):
        left_out += disputes.leave_out([PAIR], ["a"])
        loss -= BAD if left_out[-1] != liar else GOOD
        disputes.measure({"a": loss, "b": loss, "c": loss} | {liar: told})
    return left_out


@pytest.mark.parametrize("liar", PAIR)
@pytest.mark.parametrize("told", [0.0, 100.0, float("nan")])
def test_the_liar_is_left_out_but_for_few_trials(liar: str, told: float) -> None:
    left_out = play(Disputes(), 50, liar, told=told)
    assert [number for number, name in enumerate(left_out, 1) if name != liar] == (
        [1, 7, 16, 33] if liar == "b" else [2, 7, 16, 33]
    )
    assert FIRST_WAIT == 4


def test_a_node_that_becomes_good_is_taken_at_its_next_trial() -> None:
    disputes = Disputes()
    assert play(disputes, 6, "c")[2:] == ["c"] * 4
    later = play(disputes, 6, "b")
    assert later[0] == "b", "the next trial of c is due"
    assert later[1:5] == ["b"] * 4


def test_the_state_goes_on_where_it_was() -> None:
    straight, first = Disputes(), Disputes()
    expected = play(straight, 20, "c")
    found = play(first, 7, "c")
    resumed = Disputes(json.loads(json.dumps(first.state())))
    loss = first.state()["losses"]["a"]
    for _ in range(13):
        found += resumed.leave_out([PAIR], ["a"])
        loss -= BAD if found[-1] != "c" else GOOD
        resumed.measure({"a": loss, "b": loss})
    assert found == expected


def test_a_round_that_no_judge_has_measured_decides_nothing() -> None:
    disputes = Disputes()
    disputes.measure({"b": 5.0, "c": 5.0})
    for _ in range(5):
        assert disputes.leave_out([PAIR], ["a"]) == ["c"]
        disputes.measure({"b": 0.0, "c": 9.0})
    assert not disputes.state()["disputes"]["b\nc"]["gains"]


def test_without_a_pair_everybody_counts() -> None:
    disputes = Disputes()
    disputes.measure({"a": 5.0})
    assert disputes.leave_out([], ["a", "b", "c"]) == []
    disputes.measure({"a": 4.0})
    assert disputes.state()["disputes"] == {}
