"""Until when a node is waited for: table of paces, ways to wait and numbers of nodes, by a clock of the test's own."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from strategies.exchange.in_flight import Clock
from strategies.round.pace import Pace, patience
from strategies.round.standings import standings_of
from trfmoe_core.config.federation import RoundsConfig

POLL_S = 0.2
COMMIT_S = 3.0
LIAR = "x"

Takes = Callable[[str, int], float]
"""Node and round -> seconds to answer."""


@dataclass
class Cast:
    """Ballots of which only matters who has voted; all agree."""

    size: int
    voted: set[str] = field(default_factory=set)

    def has_quorum(self, quorum: int) -> bool:
        return len(self.voted) > self.size / 2

    def settled(self) -> bool:
        return True


@dataclass
class Played:
    """What the rounds showed."""

    seconds: list[float]
    counted: dict[str, list[int]]
    standings: dict[str, list[str]]


def rounds_of(nodes: list[str], takes: Takes, rounds: RoundsConfig, num_rounds: int = 8) -> Played:
    """Plays rounds as the strategy does: asks who is free, polls, ends by deadline or patience, votes, commits."""
    now = [0.0]
    pace = Pace(rounds.patience, Clock(now=lambda: now[0]))
    owed: dict[str, tuple[int, float]] = {}
    played = Played([], {name: [] for name in nodes}, {name: [] for name in nodes})
    for number in range(1, num_rounds + 1):
        ballots, start = Cast(len(nodes)), now[0]
        free = [name for name in nodes if name not in owed]
        pace.begin(free, training=True)
        owed |= {name: (number, start + takes(name, number)) for name in free}
        enough = patience(pace, rounds, ballots, 2)  # type: ignore[arg-type]
        deadline = rounds.reply_deadline_s or 3600.0
        while any(asked == number for asked, _ in owed.values()):
            for name, (asked, ready) in list(owed.items()):
                if ready <= now[0]:
                    del owed[name]
                    pace.heard(name)
                    ballots.voted |= {name} if asked == number else set()
            if not any(asked == number for asked, _ in owed.values()) or now[0] - start >= deadline:
                break
            if enough is not None and enough(now[0] - start):
                break
            now[0] += POLL_S
        pace.end()
        played.seconds.append(now[0] - start)
        found = standings_of(nodes, {}, ballots.voted, late=pace.late(nodes))
        for name in nodes:
            played.counted[name] += [number] if name in ballots.voted else []
            played.standings[name].append(found[name])
        now[0] += COMMIT_S
    return played


def names(count: int) -> list[str]:
    return [LIAR, *(f"n{number}" for number in range(1, count))]


def pace_of(odd: Callable[[int], float], others: float = 10.0) -> Takes:
    """The others differ a little; the odd one takes `odd(round)` times as long."""
    return lambda name, number: others * (odd(number) if name == LIAR else 1.0 + 0.02 * len(name))


def by_key(paces: dict[tuple[str, int], float]) -> Takes:
    return lambda name, number: paces[name, number]


WAYS = {
    "all": RoundsConfig(),
    "quorum": RoundsConfig(wait="quorum"),
    "quorum with a deadline": RoundsConfig(wait="quorum", reply_deadline_s=300.0),
}
PACES: dict[str, tuple[Callable[[int], float], bool]] = {
    "as fast": (lambda _: 1.0, True),
    "1.5 times slower": (lambda _: 1.5, True),
    "2.5 times slower": (lambda _: 2.5, True),
    "at the very limit": (lambda _: 3.06, True),
    "answers at once": (lambda _: 0.0, True),
    "10 times slower": (lambda _: 10.0, False),
    "an hour": (lambda _: 359.0, False),
    "never": (lambda _: math.inf, False),
    "slower and slower": (lambda number: 1.4**number, False),
    "early, late, early, late": (lambda number: 1.0 if number % 2 else 3.4, False),
    "late at every third": (lambda number: 1.0 if number % 3 else 8.0, False),
}


@pytest.mark.parametrize("count", [3, 4, 5, 9])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("pace", PACES)
def test_who_is_waited_for(pace: str, way: str, count: int) -> None:
    odd, honest = PACES[pace]
    played = rounds_of(names(count), pace_of(odd), WAYS[way], num_rounds=24)
    slowest = 10.0 * (1 + 0.02 * 3) + POLL_S  # as it is seen
    assert max(played.seconds) <= 3 * slowest + POLL_S, "a multiple of the others' pace"
    for name in names(count)[1:]:
        assert played.standings[name] == ["good"] * 24
    if honest:
        assert played.standings[LIAR] == ["good"] * 24
        assert played.counted[LIAR] == list(range(1, 25))
    else:
        assert "silent" in played.standings[LIAR]
        held = [seconds for seconds in played.seconds if seconds > 1.3 * slowest]
        assert sum(held) <= (24 if way == "all" else 8) * 3 * slowest


@pytest.mark.parametrize("wait", ["all", "quorum"])
def test_a_steadily_slow_node_is_counted_in_all_rounds_and_never_struck(wait: str) -> None:
    for factor in (1.2, 1.5, 2.0, 2.9):
        played = rounds_of(names(3), pace_of(lambda _, f=factor: f), RoundsConfig(wait=wait))  # type: ignore[misc]
        assert len(played.counted[LIAR]) == 8
        assert set(played.standings[LIAR]) == {"good"}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("count", [3, 5, 9])
def test_a_machine_that_is_busy_for_once_cuts_nobody_off(way: str, count: int) -> None:
    busy = {3: 6.0, 4: 20.0, 7: 3.5}

    def takes(name: str, number: int) -> float:
        return 10.0 * busy.get(number, 1.0) * (1.5 if name == LIAR else 1.0)

    rounds = WAYS[way] if "deadline" not in way else RoundsConfig(wait="quorum", reply_deadline_s=3000.0)
    played = rounds_of(names(count), takes, rounds, num_rounds=10)
    assert all(len(counted) == 10 for counted in played.counted.values())


@pytest.mark.parametrize("cores", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [3, 4, 5, 9, 40])
@pytest.mark.parametrize("way", WAYS)
def test_simulated_nodes_that_take_turns_are_all_waited_for(way: str, count: int, cores: int) -> None:
    order = {name: number // cores + 1 for number, name in enumerate(names(count))}
    rounds = WAYS[way] if "deadline" not in way else RoundsConfig(wait="quorum", reply_deadline_s=30_000.0)
    played = rounds_of(names(count), lambda name, _: 4.0 * order[name], rounds, num_rounds=3)
    assert all(len(counted) == 3 for counted in played.counted.values())


def test_a_node_that_is_gone_holds_one_round_no_longer_than_it_used_to_take() -> None:
    for pace in (0.5, 1.0, 1.5):
        played = rounds_of(names(3), pace_of(lambda n, p=pace: p if n < 4 else math.inf), WAYS["quorum"])  # type: ignore[misc]
        assert played.counted[LIAR] == [1, 2, 3]
        assert played.seconds[3] <= max(1.25, 1.5 * pace) * 10.6 + 3 * POLL_S
        assert played.standings[LIAR][3:6] == ["late", "late", "silent"] or pace > 1


def test_one_that_answers_at_once_cuts_nobody_off_beside_one_that_is_away() -> None:
    def takes(name: str, number: int) -> float:
        return {LIAR: 60.0 if number == 1 else 0.0, "n1": 60.0, "n2": 60.0 if number == 1 else math.inf}[name]

    for way in ("all", "quorum"):
        played = rounds_of(names(3), takes, WAYS[way], num_rounds=6)
        assert len(played.counted["n1"]) == 6


def test_an_hour_is_the_most_while_most_are_not_heard() -> None:
    played = rounds_of(names(3), lambda name, _: 1.0 if name == LIAR else math.inf, RoundsConfig(), num_rounds=1)
    assert played.seconds == [pytest.approx(3600.0, abs=POLL_S)]


def test_a_deadline_in_the_recipe_is_the_only_one_where_all_are_waited_for() -> None:
    for deadline, counted in ((50.0, []), (200.0, [1])):
        rounds = RoundsConfig(reply_deadline_s=deadline)
        played = rounds_of(names(3), pace_of(lambda _: 10.0), rounds, num_rounds=1)
        assert played.counted[LIAR] == counted
        assert played.seconds[0] <= deadline + POLL_S


def test_late_is_not_silent_while_the_deadline_is_what_cuts_it_off() -> None:
    rounds = RoundsConfig(reply_deadline_s=20.0)
    played = rounds_of(names(3), pace_of(lambda _: 2.5), rounds, num_rounds=9)
    assert set(played.standings[LIAR]) == {"late"}
    assert set(rounds_of(names(3), pace_of(lambda _: 4.0), rounds).standings[LIAR]) >= {"silent"}


@pytest.mark.parametrize("wait", ["all", "quorum"])
def test_a_liar_with_any_timing_strikes_nobody_and_stretches_no_round(wait: str) -> None:
    missed = 0
    for seed in range(60):
        draw = random.Random(seed)
        nodes = names(draw.choice([3, 4, 5, 7, 9]))
        base = draw.choice([0.5, 5.0, 100.0])
        share = {name: draw.uniform(1, 2) for name in nodes}
        lies = [draw.choice([0.0, 1.0, 2.9, 3.1, 10.0, math.inf, draw.uniform(0, 8)]) for _ in range(16)]
        busy = [draw.choice([1.0, 1.0, 1.0, 1.0, 4.0, 15.0]) for _ in range(16)]

        paces = {
            (name, number): base
            * busy[number]
            * share[name]
            * draw.uniform(0.9, 1.1)
            * (lies[number] if name == LIAR else 1)
            for name in nodes
            for number in range(16)
            for jitter in [draw.uniform(0.9, 1.1)]
        }
        takes = by_key(paces)
        played = rounds_of(nodes, takes, RoundsConfig(wait=wait), num_rounds=15)
        for number, seconds in enumerate(played.seconds, 1):
            others = 1.1 * base * max(share.values()) * max(busy[: number + 1])
            assert seconds <= max(30.0, 3 * (others + POLL_S)) + POLL_S, (seed, number)
        for name in nodes[1:]:
            assert set(played.standings[name]) <= {"good", "late"}, (seed, name)
            missed += 15 - len(played.counted[name])
    assert missed <= 10
