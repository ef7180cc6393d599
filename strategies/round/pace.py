"""How long nodes take to answer, and how long the coordinator waits for the missing ones.

A node is measured against the other nodes, never against its own past. So a node that gets slower and slower cannot
make a round longer than a stated multiple of the others' pace. The others' median counts, so a node that answers at
once cuts nobody off. Simulated nodes take turns on few cores: if three answer in turn, the last takes twice the median.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median_high

from strategies.exchange.in_flight import Clock
from strategies.round.ballots import Ballots
from strategies.round.ranked import Ranked
from trfmoe_core.config.federation import RoundsConfig

LONGEST_S = 3600.0
"""Longest wait of a phase in seconds, if the recipe sets no deadline."""

SHORTEST_S = 30.0
"""Shortest wait in seconds before pace alone ends a phase: in short rounds chance decides who is slow."""

MEMORY = 5
"""Number of a node's latest answers from which its pace is computed."""

STEADY = 2
"""A quorum waits for a node if this many of its latest answers were all in time."""

SLACK = 1.5
"""A quorum waits for a node this many times as long as the node took before. By then it is most often gone."""

GLANCE_S = 1.0
"""Seconds. A late answer that is found this soon after a phase begins had arrived between the phases."""


class Pace:
    """The pace of one run's nodes, from when they were asked and when they answered. A resumed run learns it anew.

    Args:
        factor: An answer is in time up to this many times as long as the others take.
        clock: Time; tests put in their own.
    """

    def __init__(self, factor: float, clock: Clock) -> None:
        self.factor = factor
        self._clock = clock
        self._began = self._ended = clock.now()
        self._training = True
        self._asked: set[str] = set()
        self._took: dict[str, float] = {}
        self._asked_at: dict[str, float] = {}
        self._then: dict[str, _Others] = {}
        self._late: set[str] = set()
        self._recent: dict[str, deque[float]] = {}
        self._here, self._before = Ranked(), Ranked()
        self._answers: dict[str, deque[_Answer]] = {}

    def begin(self, names: Iterable[str], training: bool) -> None:
        """Begins a phase in which these nodes are asked; only training tells the pace of later phases."""
        self._began, self._training = self._clock.now(), training
        self._asked, self._took, self._late, self._here = set(names), {}, set(), Ranked()
        for name in self._asked:
            if name in self._asked_at:  # Its last answer was lost or is no longer waited for.
                self._note(name, _Answer(in_time=False, ratio=self.factor))
            self._asked_at[name] = self._began
            self._then.pop(name, None)

    def heard(self, name: str) -> None:
        """Records an answer of a node, in time or to an earlier phase."""
        asked_at = self._asked_at.pop(name, None)
        if asked_at is None:
            return
        now = self._clock.now()
        if name in self._asked:
            self._took[name] = now - asked_at
            self._here.put(name, now - asked_at)
            if self._training:
                self._remember(name, now - asked_at)
            return
        took = (self._ended if now - self._began < GLANCE_S else now) - asked_at
        self._remember(name, took)
        answer = self._answer(took, self._then.pop(name, _Others()))
        self._note(name, answer)
        if answer.in_time:
            self._late.add(name)

    def lost(self, name: str) -> None:
        """Records that no answer of a node will come. It does not count as a measurement of pace."""
        self._asked_at.pop(name, None)
        self._asked.discard(name)
        self._here.drop(name)

    def end(self) -> None:
        """Ends the phase. The coordinator waits for no node any more."""
        self._ended = self._clock.now()
        for name in self._asked:
            others = self._others(name)
            if name not in self._took:
                self._then[name] = others
            elif self._training:
                self._note(name, self._answer(self._took[name], others))

    @property
    def waiting(self) -> list[str]:
        """The nodes that have not answered in this phase."""
        return sorted(self._asked - set(self._took))

    def is_beyond(self, name: str, elapsed_s: float) -> bool:
        """Returns True if an answer that arrives now would be late."""
        return elapsed_s > self.factor * self._others(name).usual

    def is_expected(self, name: str, elapsed_s: float) -> bool:
        """Returns True if an answer may come soon: by a node's earlier answers; if it is new, while it is in time."""
        answers = self._answers.get(name, ())
        slowest = max((answer.ratio for answer in answers), default=self.factor)
        patience = min(self.factor, SLACK * slowest)
        return all(answer.in_time for answer in answers) and elapsed_s <= patience * self._others(name).usual

    def late(self, names: Iterable[str]) -> set[str]:
        """Returns the nodes that have not answered in this phase and are late, but still within their time."""
        return {name for name in names if name in self._late or self._within(name)}

    def _within(self, name: str) -> bool:
        asked_at, others = self._asked_at.get(name), self._then.get(name)
        return asked_at is not None and others is not None and self._ended - asked_at <= self.factor * others.usual

    def _others(self, name: str) -> "_Others":
        """Returns the pace of the other nodes; it is unknown until most of them have answered."""
        others = len(self._asked) - (name in self._asked)
        if not others or self._here.count_without(name) <= others / 2:
            return _Others()
        now = self._here.median_high_without(name)
        if not self._training or not self._before.count_without(name):
            return _Others(now=now, usual=now)
        return _Others(now=now, usual=max(now, self._before.median_high_without(name)))

    def _remember(self, name: str, took: float) -> None:
        recent = self._recent.setdefault(name, deque(maxlen=MEMORY))
        recent.append(took)
        self._before.put(name, median_high(recent))

    def _answer(self, took: float, others: "_Others") -> "_Answer":
        ratio = took / others.now if others.now else self.factor
        return _Answer(in_time=took <= self.factor * others.usual, ratio=ratio)

    def _note(self, name: str, answer: "_Answer") -> None:
        self._answers.setdefault(name, deque(maxlen=STEADY)).append(answer)


@dataclass(frozen=True, kw_only=True)
class _Others:
    """How long a node's peers take, in seconds; infinite while it is not known.

    Attributes:
        now: In this phase.
        usual: The larger of this phase and earlier ones, so that one very quick answer cuts nobody off.
    """

    now: float = float("inf")
    usual: float = float("inf")


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """How a node answered. `ratio` is to what the others took in the same phase."""

    in_time: bool
    ratio: float


def patience(
    pace: Pace, rounds: RoundsConfig, ballots: Ballots | None = None, quorum: int = 0
) -> Callable[[float], bool] | None:
    """Returns a test whether a phase may end though nodes have not answered; None: it waits up to its deadline.

    Without a deadline in the recipe a phase ends when whoever has not answered is beyond its time. With `wait: quorum`
    training also ends when a quorum is there and agrees, the grace time has passed, and nobody else is expected soon.

    Args:
        pace: Of the nodes.
        rounds: How the recipe waits.
        ballots: The round's; None where nothing is voted on.
        quorum: Replicas of an expert that are enough.
    """
    by_quorum = rounds.wait == "quorum"
    by_pace = rounds.reply_deadline_s is None or (by_quorum and ballots is None)
    if not by_pace and not by_quorum:
        return None
    reached: list[float] = []

    def enough(elapsed_s: float) -> bool:
        if by_pace and elapsed_s > SHORTEST_S and all(pace.is_beyond(name, elapsed_s) for name in pace.waiting):
            return True
        if not by_quorum or ballots is None or not ballots.has_quorum(quorum):
            return False
        if not reached:
            reached.append(elapsed_s)
        if elapsed_s < reached[0] * (1 + rounds.grace):
            return False
        return not any(pace.is_expected(name, elapsed_s) for name in pace.waiting) and ballots.settled()

    return enough
