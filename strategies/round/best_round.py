"""Finds the round with the best model by the nodes' measurements on their held-out text. No single node may decide it.

Levels of different nodes cannot be compared, because one owner's text is harder than another's. With the median of
levels a liar could choose between the levels of an easy and a hard owner. So each node's change since the best round
so far is compared. Of two changes the worse one counts, of three and more the median.
"""

from collections.abc import Iterable, Mapping
from math import isfinite
from statistics import median_high
from typing import Any

FEWEST = 2
"""Fewest nodes that must have measured a round before it can be the best."""

WORST = 1e6
"""Replaces a measurement that is no number."""


def robust(values: Iterable[float]) -> float:
    """Returns the worse of two values, or the median of three and more (the worse middle one of an even number).

    One value alone, whatever it is, cannot make the result better than the best of the others.
    """
    return median_high([_bounded(value) for value in values])


class BestRound:
    """The best of the rounds that it was told of, in their order.

    Args:
        fewest: Nodes that must have measured a round; 1 where the machine that measures is trusted.
        state: What `state` returned, to go on from there.
    """

    def __init__(self, fewest: int = FEWEST, state: Mapping[str, Any] | None = None) -> None:
        self.fewest = fewest
        state = state or {}
        self.round: int | None = state.get("round")
        self._known: dict[str, float] = dict(state.get("known", {}))
        self._then: dict[str, float] = dict(state.get("then", {}))

    def state(self) -> dict[str, Any]:
        """Returns everything that a resume needs, as plain values: `round` is the best, None while there is none."""
        return {"round": self.round, "known": self._known, "then": self._then}

    def tell(self, number: int, measured: Mapping[str, float], candidate: bool = True) -> bool:
        """Takes in a round, and returns whether it is the best now.

        Args:
            number: The round.
            measured: Node -> bits per byte.
            candidate: Whether the round may become the best.
        """
        values = {name: _bounded(value) for name, value in measured.items()}
        self._known |= values
        if not candidate or len(values) < self.fewest or (self.round is not None and not self._improved(values)):
            return False
        self.round, self._then = number, dict(self._known)
        return True

    def _improved(self, values: Mapping[str, float]) -> bool:
        # A node that was away in the best round counts with its last measurement before that round.
        changes = [value - self._then[name] for name, value in values.items() if name in self._then]
        # If at most two nodes measured the best round, one of them must not keep it against three.
        weak = len(changes) < 3 <= len(values)
        if changes and (min(changes) if weak else median_high(changes)) >= 0:
            return False
        return len(changes) >= self.fewest or robust(values.values()) < robust(self._then.values())


def _bounded(value: float) -> float:
    return min(value, WORST) if isfinite(value) and value >= 0 else WORST
