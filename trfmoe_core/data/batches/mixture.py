"""Chooses the source of the next row of training text, for nodes with several sources.

Shapes: S = sources. The only state is `given`: how many rows each source has given since the start, that is its epochs
times its rows per epoch plus its row in the current epoch.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Mixture:
    """How several sources share one stream.

    Attributes:
        weights: (S,) relative shares of the rows, positive.
        lengths: (S,) rows per epoch of each source, positive.
        stops: (S,) True: the source gives its rows once, and the others go on without it. When all sources have
            stopped, all begin again. False: it repeats forever.
    """

    weights: Sequence[float]
    lengths: Sequence[int]
    stops: Sequence[bool]

    def draw(self, given: Sequence[int]) -> int:
        """Returns the source of the next row.

        It is the source that lags behind its share most: the one with the smallest (given + 1/2) / weight, the first
        of equals (Webster's method). Every source stays within
        1/2 + S/2 * share rows of its exact share.
        """
        counts = self._this_time(given)
        going = [
            source
            for source in range(len(self.weights))
            if not (self.stops[source] and counts[source] >= self.lengths[source])
        ]
        return min(going, key=lambda source: ((counts[source] + 0.5) / self.weights[source], source))

    def _this_time(self, given: Sequence[int]) -> Sequence[int]:
        """Returns the rows that each source has given since all of them began, for the last time."""
        if not all(self.stops):
            return given
        times = min(count // length for count, length in zip(given, self.lengths, strict=True))
        return [count - times * length for count, length in zip(given, self.lengths, strict=True)]
