"""Tests of how the seconds of a round divide among their owners."""

import pytest

from server.report.round_seconds import mean_round_seconds, round_seconds, train_share
from server.run_folder.journal import Event


def _reply(number: int, time: float, status: str = "accepted", **spent: float) -> Event:
    return {"event": "node_reply", "round": number, "status": status, "time": time, "spent": spent}


def _round(number: int, planned: float, replies: list[Event], end: float) -> list[Event]:
    return [
        {"event": "round_planned", "round": number, "time": planned},
        *replies,
        {"event": "verdicts", "round": number, "time": end - 0.5},
        {"event": "round_committed", "round": number, "time": end},
    ]


FIRST = [{"event": "run_started", "time": 80.0}, *_round(1, 90.0, [_reply(1, 99.0, train=5.0)], 100.0)]


def test_the_seconds_of_a_round_have_owners_and_add_up() -> None:
    replies = [_reply(2, 129.0, start=9.0), _reply(2, 130.0, start=2.0, train=20.0), _reply(2, 131.0, "missing")]
    late = _reply(2, 133.0, "late", train=30.0)
    [seconds] = round_seconds([*FIRST, *_round(2, 101.0, replies, 132.0), late])
    assert seconds == {
        "coordinator: encode": 1.0,
        "node: start": 2.0,
        "node: train": 20.0,
        "Flower and network": 7.0,
        "coordinator: vote": 1.5,
        "coordinator: commit": 0.5,
    }
    assert sum(seconds.values()) == 32.0


def test_the_work_of_nodes_that_wait_for_each_other_counts_together() -> None:
    """Two nodes work at once; the third begins when the first of them has answered."""
    replies = [_reply(2, 106.0, train=4.0), _reply(2, 107.0, train=5.0), _reply(2, 110.0, evaluate=0.5, train=3.0)]
    events = [*FIRST, *_round(2, 101.0, replies, 111.0)]
    [seconds] = round_seconds(events)
    assert seconds["node: train"] == 7.0
    assert seconds["node: evaluate"] == 0.5
    assert seconds["Flower and network"] == pytest.approx(1.5)
    assert sum(seconds.values()) == pytest.approx(11.0)
    assert train_share(mean_round_seconds(events)) == pytest.approx(7 / 11)


def test_a_round_in_which_the_run_stood_still_is_left_out() -> None:
    second = _round(2, 101.0, [_reply(2, 130.0, train=20.0)], 132.0)
    third = _round(3, 901.0, [_reply(3, 930.0, train=20.0)], 932.0)
    assert len(round_seconds([*FIRST, *second, *third])) == 2
    assert len(round_seconds([*FIRST, *second, {"event": "run_started", "time": 900.0}, *third])) == 1


def test_without_a_second_round_there_is_nothing_to_divide() -> None:
    assert mean_round_seconds(FIRST) == {}
    assert train_share({}) is None
