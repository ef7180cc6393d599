"""Two nodes contradict each other, and nothing in their updates says who lies: the other nodes' measurements do.

Honest nodes do not point away from each other (`pooled_direction`), so one of the two lies. Each round takes one of
them with all others, and leaves the other one out. All nodes measure the model that comes of it on their held-out text
before they train again. Those that nobody contradicts are honest if one node lies, since the liar is in the pair; so by
how much their loss fell says which of the two does good.

One of the two is ahead and counts. Now and then the other one is tried for a round. Losses fall less and less as
training goes on, so what the trial was worth is compared with the rounds before and after it: whoever is better is
ahead from then on. The first trial is in the second round of the dispute, the next one 4 rounds after it was judged,
then 8, 16, ... There is none in the last rounds, in which nothing could be made of it.

Nobody gets a strike for this: a contradiction is what the liar alone can make.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from statistics import fmean
from typing import Any

Pair = tuple[str, str]

FIRST_WAIT = 4
"""Rounds in which the node that is ahead counts between two trials of the other one; twice as many each time."""


@dataclass(kw_only=True)
class _Dispute:
    """One pair.

    Attributes:
        ahead: The node that counts.
        wait: Rounds of `ahead` until the other one is tried; 0: its trial is due.
        trials: How many were judged since `ahead` is ahead.
        before: What the last round of `ahead` was worth.
        tried: What the trial was worth that is not judged yet.
    """

    ahead: str
    wait: int = 1
    trials: int = 0
    before: float | None = None
    tried: float | None = None

    def end(self, taken: str, gain: float, other: str) -> None:
        """Takes what a round was worth in which `taken` counted."""
        if taken != self.ahead:
            self.tried = gain
            return
        if self.tried is not None and self.before is not None:
            if self.tried > _between(self.before, gain):
                self.ahead, self.trials, gain = other, 0, self.tried
            self.wait = FIRST_WAIT * 2**self.trials + 1
            self.trials += 1
            self.tried = None
        self.before = gain
        self.wait = max(0, self.wait - 1)


class Disputes:
    """The disputes of one run.

    Args:
        state: What `state` returned, to go on from there.
    """

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        state = state or {}
        self._losses: dict[str, float] = dict(state.get("losses", {}))
        self._trials: list[dict[str, Any]] = [dict(trial) for trial in state.get("trials", ())]
        self._disputes = {key: _Dispute(**found) for key, found in state.get("pairs", {}).items()}

    def state(self) -> dict[str, Any]:
        """Returns everything as plain values."""
        pairs = {key: asdict(dispute) for key, dispute in self._disputes.items()}
        return {"losses": self._losses, "trials": self._trials, "pairs": pairs}

    def measure(self, losses: Mapping[str, float]) -> None:
        """Takes the loss of the model that the last round made, by node, and so ends that round's trials."""
        for trial in self._trials:
            judges = [name for name in trial["judges"] if name in losses and name in self._losses]
            dispute = self._disputes.get(_key(trial["pair"]))
            if judges and dispute is not None:
                other = next(name for name in trial["pair"] if name != trial["taken"])
                dispute.end(trial["taken"], fmean(self._losses[name] - losses[name] for name in judges), other)
        self._trials = []
        self._losses = dict(losses)

    def leave_out(self, pairs: Sequence[Pair], judges: Sequence[str], rounds_left: int) -> list[str]:
        """Returns which nodes do not count in this round, one of each pair.

        Args:
            pairs: Nodes that contradict each other.
            judges: Nodes that nobody contradicts.
            rounds_left: How many rounds follow this one.
        """
        self._trials = []
        contradictions = Counter(name for pair in pairs for name in pair)
        left_out = []
        for pair in pairs:
            # If several nodes contradict the same one, they begin ahead of it.
            first = min(pair, key=lambda name: (contradictions[name], name))
            dispute = self._disputes.setdefault(_key(pair), _Dispute(ahead=first))
            is_trial = dispute.wait == 0 and dispute.tried is None and rounds_left >= FIRST_WAIT
            taken = next(name for name in pair if (name != dispute.ahead) == is_trial)
            self._trials.append({"pair": list(pair), "taken": taken, "judges": list(judges)})
            left_out.append(next(name for name in pair if name != taken))
        return sorted(left_out)


def _between(before: float, after: float) -> float:
    """Returns what a round between two others would have been worth: gains shrink by about the same factor a round.

    Where the loss rose in one of the two, the trend of the gains says nothing, and the worse of the two is taken.
    """
    return sqrt(before * after) if before > 0 and after > 0 else min(before, after)


def _key(pair: Sequence[str]) -> str:
    return "\n".join(pair)
