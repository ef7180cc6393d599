"""Which source the next window of training text comes from, where a node has several.

S = sources. All windows have the same number of tokens, so shares of windows are shares of tokens. A stream keeps one
cursor a source; `given` is how many windows each has given out since the start (its epochs times its windows an epoch,
plus its place in the epoch), and everything follows from it: nothing else needs to be kept to go on exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Mixture:
    """How several sources share one stream.

    Attributes:
        weights: (S,) relative shares, positive.
        lengths: (S,) windows an epoch of each source, positive.
        stops: (S,) True: the source is given out once and the others go on without it; where none goes on, all begin
            again. False: it repeats for ever.
    """

    weights: Sequence[float]
    lengths: Sequence[int]
    stops: Sequence[bool]

    def draw(self, given: Sequence[int]) -> int:
        """Returns the source of the next window.

        The one that lags behind its share most (Webster's divisors: the least (given + 1/2) / weight, the first of
        equals), so that what was given out holds the sources in proportion, each to half a window and its share of
        S / 2 windows.
        """
        counts = self._this_time(given)
        going = [
            source
            for source in range(len(self.weights))
            if not (self.stops[source] and counts[source] >= self.lengths[source])
        ]
        return min(going, key=lambda source: ((counts[source] + 0.5) / self.weights[source], source))

    def _this_time(self, given: Sequence[int]) -> Sequence[int]:
        """Returns the windows since all began (again)."""
        if not all(self.stops):
            return given
        times = min(count // length for count, length in zip(given, self.lengths, strict=True))
        return [count - times * length for count, length in zip(given, self.lengths, strict=True)]
