"""Values by name, kept in order, so that the median of all but one is found without sorting them again."""

from bisect import bisect_left, insort


class Ranked:
    """Numbers by name."""

    def __init__(self) -> None:
        self._values: dict[str, float] = {}
        self._ordered: list[float] = []

    def put(self, name: str, value: float) -> None:
        """Sets the value of a name."""
        self.drop(name)
        self._values[name] = value
        insort(self._ordered, value)

    def drop(self, name: str) -> None:
        """Removes a name, if it is there."""
        value = self._values.pop(name, None)
        if value is not None:
            del self._ordered[bisect_left(self._ordered, value)]

    def count_without(self, name: str) -> int:
        """Returns the number of names besides this one."""
        return len(self._values) - (name in self._values)

    def median_high_without(self, name: str) -> float:
        """Returns the higher median of the values of all other names.

        Raises:
            IndexError: There is no other name.
        """
        place = self.count_without(name) // 2
        own = self._values.get(name)
        if own is not None and bisect_left(self._ordered, own) <= place:
            place += 1
        return self._ordered[place]
