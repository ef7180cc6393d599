"""The notes name what falls short, and only that."""

from strategies.placement.notes import limits, notes
from strategies.placement.placement import place
from tests.strategies.placement.test_placement import experts, in_zones, names


def test_a_placement_without_faults_has_no_notes() -> None:
    assert notes(place(experts(1, 24), names(9))) == []
    assert notes(place(experts(1, 24), names(9), zones=in_zones(9, 3))) == []


def test_too_few_zones_are_said() -> None:
    (note,) = notes(place(experts(1, 8), names(6), zones=in_zones(6, 2)))
    assert "8 experts have two replicas in one zone, because there are only 2 zones for 3 replicas" in note


def test_a_zone_that_is_too_large_is_said_with_the_loads() -> None:
    zones = dict(zip(names(10), ["a"] * 6 + ["b"] * 2 + ["c"] * 2, strict=True))
    (note,) = notes(place(experts(1, 30), names(10), zones=zones))
    assert "zone a has 6 of 10 nodes" in note
    assert "from 5 to 15" in note


def test_nodes_without_a_zone_and_a_bound_that_is_missed_are_said() -> None:
    zones = {**in_zones(9, 9), "node-0000": None}
    assert any("1 nodes say no zone" in note for note in notes(place(experts(1, 12), names(9), zones=zones)))
    assert notes(place(experts(1, 3), names(5))) == ["two nodes share 2 experts; the lower bound is 1"]


def test_limits_say_what_no_placement_gives() -> None:
    text = " ".join(limits(3, 3))
    assert "any 2 own everything" in text
    assert "mean loss under random faults is the same" in text
    assert "below 7 nodes" in " ".join(limits(3, 5))
    assert "with 5 nodes any 3 own everything" in " ".join(limits(5, 5))
