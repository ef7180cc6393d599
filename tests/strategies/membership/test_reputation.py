"""Reputation and seats: persistent troublemakers lose their experts, for a while, and never below three nodes."""

from random import Random
from typing import Any

import pytest

from strategies.exchange.messages import Description
from strategies.membership.members import Member
from strategies.membership.reputation import FALSE_ALARM, HONEST, HONEST_EXPERT, Reputation, Standing
from strategies.membership.seats import Seats
from strategies.round.standings import lost_experts, standings_of
from strategies.voting.vote import Verdict
from trfmoe_core.blocks import TRUNK
from trfmoe_core.config import ReputationConfig

CONFIG = ReputationConfig(strikes=2, cool_off_rounds=3)
EXPERTS = [f"layers.{layer}.experts.{number}" for layer in range(2) for number in range(8)]


def members(*names: str) -> dict[str, Member]:
    def describe(name: str) -> Description:
        return Description(name=name, code_fingerprint="0" * 64, versions={}, zone=f"zone-{name}")

    return {name: Member(name=name, node_id=number, description=describe(name)) for number, name in enumerate(names)}


class Table:
    """A seating whose rounds are played by hand."""

    def __init__(self, *names: str) -> None:
        self.events: list[dict[str, Any]] = []
        self.seats = Seats(EXPERTS, CONFIG, lambda kind, **f: self.events.append({"event": kind, **f}), None)
        self.members = members(*names)
        self.seats.open(self.members)
        self.round = 0

    def play(self, alone: str = "", silent: str = "", split: bool = False, convicted: tuple[str, ...] = ()) -> None:
        self.round += 1
        self.seats.update(self.round, self.members)
        verdicts = {}
        for block, holders in self.seats.placement.holders.items():
            there = tuple(name for name in holders if name != silent)
            lost = tuple(name for name in there if name == alone)
            outcome = "median" if split else "majority" if lost else "unanimous"
            verdicts[block] = Verdict(
                outcome=outcome,
                accepted=tuple(name for name in there if name not in lost),
                outvoted=lost,
                alone=alone if lost and not split else None,
            )
        seated = self.seats.placement.nodes
        self.seats.observe(standings_of(seated, verdicts, [name for name in seated if name != silent], convicted))

    def kinds(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == kind]


def test_a_lone_loser_sits_out_and_comes_back() -> None:
    table = Table("a", "b", "c", "d", "e")
    before = table.seats.placement
    for _ in range(3):
        table.play(alone="c")
    after = table.seats.placement
    assert "c" not in after.nodes
    moved = [block for block in EXPERTS if set(after.holders[block]) != set(before.holders[block])]
    assert moved == [block for block in EXPERTS if "c" in before.holders[block]]
    quarantine = table.kinds("node_quarantined")[0]
    assert (quarantine["node"], quarantine["round"], quarantine["until_round"]) == ("c", 3, 7)
    assert "alone for 2 rounds" in quarantine["reason"]
    for _ in range(3):
        table.play()
    assert "c" not in table.seats.placement.nodes
    table.play()
    assert "c" in table.seats.placement.nodes
    assert table.kinds("placement")[-1]["reason"] == "c joined"
    assert table.seats.placement.epoch == 3
    assert table.seats.placement.holders[TRUNK] == ("a", "b", "c", "d", "e")


def test_silence_counts_as_much() -> None:
    table = Table("a", "b", "c", "d")
    for _ in range(3):
        table.play(silent="b")
    assert table.seats.placement.nodes == ("a", "c", "d")


def test_three_nodes_keep_their_seats_and_the_suspect_is_marked_once() -> None:
    table = Table("a", "b", "c")
    for _ in range(6):
        table.play(alone="b")
    assert table.seats.placement.nodes == ("a", "b", "c")
    assert table.seats.placement.epoch == 1
    assert [event["node"] for event in table.kinds("node_suspect")] == ["b"]
    assert not table.kinds("node_quarantined")


def test_who_is_convicted_sits_out_even_when_it_is_not_alone() -> None:
    table = Table("a", "b", "c", "d", "e")
    for _ in range(3):
        table.play(alone="b", split=True, convicted=("b",))
    assert table.seats.placement.nodes == ("a", "c", "d", "e")
    assert "b was convicted for 2 rounds in a row" in table.kinds("node_quarantined")[0]["reason"]


def test_split_votes_convict_nobody() -> None:
    table = Table("a", "b", "c", "d")
    for _ in range(6):
        table.play(alone="b", split=True)
    assert table.seats.placement.nodes == ("a", "b", "c", "d")


def test_one_good_round_clears_the_strikes() -> None:
    table = Table("a", "b", "c", "d")
    for alone in ("b", "", "b", ""):
        table.play(alone=alone)
    assert not table.kinds("node_quarantined")


def test_a_resumed_seating_goes_on_the_same() -> None:
    first = Table("a", "b", "c", "d")
    for _ in range(2):
        first.play(alone="c")
    again = Seats(EXPERTS, CONFIG, lambda kind, **f: None, first.seats.state())
    again.open(first.members)
    again.update(3, first.members)
    first.play(alone="c")
    assert again.placement == first.seats.placement
    assert again.reputation.records["c"].out_until == 7


def test_the_worst_goes_first_and_three_stay() -> None:
    reputation = Reputation(CONFIG)
    alone: dict[str, Standing] = {"a": "alone", "b": "silent", "c": "good", "d": "good"}
    for _ in range(2):
        reputation.observe(alone)
    reputation.observe({"b": "silent"})
    assert reputation.to_leave(["a", "b", "c", "d"], 3) == ["b"]


def rounds_until_named(standings: list[Standing]) -> int | None:
    """Returns the round in which a node has enough against it; None if it never has."""
    reputation = Reputation(ReputationConfig(strikes=3))
    for number, standing in enumerate(standings, 1):
        reputation.observe({"x": standing})
        if reputation.newly_suspect(["x"]):
            return number
    return None


def test_a_node_that_lies_now_and_then_is_named_within_twenty_rounds() -> None:
    assert rounds_until_named(["alone", "good"] * 10) == 5
    assert rounds_until_named(["good"] * 10 + ["alone", "good"] * 10) in range(10, 24)
    assert rounds_until_named(["convicted", "good", "good"] * 7) in range(5, 21)
    assert rounds_until_named(["silent", "good"] * 100) is None, "silence is no lie"


def test_an_honest_node_is_hardly_ever_named_however_long_the_run_is() -> None:
    draw = Random(0)
    runs = 2000
    reputation = Reputation(ReputationConfig(strikes=10**6))
    named = set()
    for _ in range(200):
        reputation.observe({str(run): "alone" if draw.random() < HONEST else "good" for run in range(runs)})
        named |= set(reputation.newly_suspect(map(str, range(runs))))
    assert len(named) <= FALSE_ALARM * runs


def test_evidence_survives_a_resume_also_from_an_earlier_release() -> None:
    reputation = Reputation(ReputationConfig(strikes=3), {"x": {"strikes": 1, "last": "alone"}})
    reputation.observe({"x": "alone"})
    again = Reputation(ReputationConfig(strikes=3), reputation.state())
    assert again.records == reputation.records
    assert again.records["x"].evidence > 0


BLOCKS = 17
RUNS = 300


def rounds_until_an_expert_is_named(draw: Random, lies: float, found: float, honest: float, rounds: int) -> int | None:
    """Returns the round in which a node is named for a single expert; None if it never is.

    Args:
        draw: Random numbers.
        lies: Share of the rounds in which the node lies about its first expert; it begins in one of the first three.
        found: How often such a lie is found.
        honest: How often an honest replica of an expert loses alone or is struck.
        rounds: Rounds to play.
    """
    reputation = Reputation(ReputationConfig(strikes=3))
    first = draw.randrange(3)
    for number in range(rounds):
        is_lie = number >= first and (number - first) * lies % 1 < lies
        rates = [found if is_lie and expert == 0 else honest for expert in range(BLOCKS - 1)]
        lost = [EXPERTS[expert % len(EXPERTS)] for expert, rate in enumerate(rates) if draw.random() < rate]
        reputation.observe({"x": "good"}, {"x": lost})
        if reputation.newly_suspect_of({"x": BLOCKS}):
            return number + 1
        assert not reputation.to_leave(["x"], 0), "an expert costs no seat"
    return None


@pytest.mark.parametrize(("lies", "found"), [(1.0, 1.0), (1.0, 0.6), (0.5, 1.0), (0.5, 0.8)])
def test_a_liar_of_one_expert_is_named_within_twenty_rounds(lies: float, found: float) -> None:
    draw = Random(0)
    named = [rounds_until_an_expert_is_named(draw, lies, found, 0.003, 20) for _ in range(RUNS)]
    assert sum(number is not None for number in named) >= 0.9 * RUNS


@pytest.mark.parametrize("honest", [0.003, HONEST_EXPERT])
def test_an_honest_node_is_hardly_ever_named_for_an_expert(honest: float) -> None:
    draw = Random(1)
    named = [rounds_until_an_expert_is_named(draw, 0.0, 0.0, honest, 100) for _ in range(RUNS)]
    assert sum(number is not None for number in named) <= FALSE_ALARM * RUNS


def test_a_node_named_for_an_expert_keeps_its_seat_and_is_named_once() -> None:
    table = Table("a", "b", "c", "d")
    block = next(block for block, holders in table.seats.placement.holders.items() if "b" in holders)
    for number in range(1, 9):
        table.seats.update(number, table.members)
        table.seats.observe(dict.fromkeys("abcd", "good"), {"b": [block]})
    assert [(event["node"], block in event["reason"]) for event in table.kinds("node_suspect")] == [("b", True)]
    assert "b" in table.seats.placement.nodes
    again = Reputation(CONFIG, table.seats.reputation.state())
    assert again.records == table.seats.reputation.records


def test_what_a_node_lost_alone_and_what_was_struck_is_counted_by_expert() -> None:
    verdicts = {
        "layers.0.experts.0": Verdict(outcome="majority", accepted=("a", "b"), outvoted=("c",), alone="c"),
        "layers.0.experts.1": Verdict(outcome="majority", accepted=("a", "b"), outvoted=("c",), alone="c"),
        TRUNK: Verdict(outcome="majority", accepted=("a", "b"), outvoted=("c",), alone="c"),
    }
    assert lost_experts(verdicts, {"layers.0.experts.1": "b"}) == {
        "c": ["layers.0.experts.0"],
        "b": ["layers.0.experts.1"],
    }
