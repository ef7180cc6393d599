"""Two nodes contradict each other, and nothing in their updates says who lies: the other nodes' measurements do.

Honest nodes do not point away from each other (`pooled_direction`), so one of the two lies. Each round takes one of
them with all others, and leaves the other one out. All nodes measure the model that comes of it on their held-out text
before they train again. Those that nobody contradicts are honest if one node lies, since the liar is in the pair; so by
how much their loss fell says which of the two does good. Each of the two is tried once; then the one that is ahead
counts, and the other one is tried again after 4 such rounds, then after 8, 16, ...

Nobody gets a strike for this: a contradiction is what the liar alone can make.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

Pair = tuple[str, str]

FIRST_WAIT = 4
"""Rounds in which the node that is ahead counts before the other one is tried again; twice as many each time."""


class Disputes:
    """The disputes of one run.

    Args:
        state: What `state` returned, to go on from there.
    """

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        state = state or {}
        self._losses: dict[str, float] = dict(state.get("losses", {}))
        self._trials: list[dict[str, Any]] = [dict(trial) for trial in state.get("trials", ())]
        self._disputes: dict[str, dict[str, Any]] = {
            key: dict(found) for key, found in state.get("disputes", {}).items()
        }

    def state(self) -> dict[str, Any]:
        """Returns everything as plain values."""
        return {"losses": self._losses, "trials": self._trials, "disputes": self._disputes}

    def measure(self, losses: Mapping[str, float]) -> None:
        """Takes the loss of the model that the last round made, by node, and so ends that round's trials."""
        for trial in self._trials:
            judges = [name for name in trial["judges"] if name in losses and name in self._losses]
            if judges:
                gain = fmean(self._losses[name] - losses[name] for name in judges)
                self._end(self._disputes[_key(trial["pair"])], trial["taken"], gain)
        self._trials = []
        self._losses = dict(losses)

    def leave_out(self, pairs: Sequence[Pair], judges: Sequence[str]) -> list[str]:
        """Returns which node of each pair does not count in this round.

        Args:
            pairs: Nodes that contradict each other.
            judges: Nodes that nobody contradicts.
        """
        self._trials = []
        left_out = []
        for pair in pairs:
            dispute = self._disputes.setdefault(_key(pair), {"gains": {}, "confirmed": 0, "since": 0})
            taken = _taken(dispute, pair)
            self._trials.append({"pair": list(pair), "taken": taken, "judges": list(judges)})
            left_out.append(next(name for name in pair if name != taken))
        return sorted(left_out)

    @staticmethod
    def _end(dispute: dict[str, Any], taken: str, gain: float) -> None:
        gains = dispute["gains"]
        behind = _behind(gains)
        gains[taken] = gain
        if behind is None:
            dispute["since"] = 0
        elif taken == behind:
            dispute["confirmed"], dispute["since"] = (dispute["confirmed"] + 1 if _behind(gains) == behind else 0), 0
        else:
            dispute["since"] += 1


def _taken(dispute: Mapping[str, Any], pair: Pair) -> str:
    """Returns the node that has not been tried, else the one that is ahead, unless the other's next trial is due."""
    gains: Mapping[str, float] = dispute["gains"]
    untried = [name for name in pair if name not in gains]
    if untried:
        return untried[0]
    behind = _behind(gains)
    is_due = dispute["since"] >= FIRST_WAIT * 2 ** dispute["confirmed"]
    return next(name for name in pair if (name == behind) == is_due)


def _behind(gains: Mapping[str, float]) -> str | None:
    """Returns the node with the smaller gain; None before both were tried."""
    return min(gains, key=gains.__getitem__) if len(gains) == 2 else None


def _key(pair: Sequence[str]) -> str:
    return "\n".join(pair)
