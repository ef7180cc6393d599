"""A data set that several nodes share, dealt out: every part belongs to exactly one of them."""

from collections.abc import Sequence

from pydantic import Field, model_validator

from trfmoe_core.config.section import Section


class Partition(Section):
    """`{index: 0, of: 3}`: this node's part of a shared data set."""

    index: int = Field(ge=0, description="this node's number among those that share it")
    of: int = Field(ge=1, le=100_000, description="how many nodes share it")

    @model_validator(mode="after")
    def _check(self) -> "Partition":
        if self.index >= self.of:
            raise ValueError(f"index: {self.index} is not below of: {self.of}; they count from 0")
        return self


def row_ranges(rows: Sequence[int], part: Partition) -> list[tuple[int, int]]:
    """Returns for files of `rows` rows each the rows (first, after the last) that belong to a part.

    Parts are runs of rows over all files in order, and differ by one row at most.
    """
    total = sum(rows)
    low, high = total * part.index // part.of, total * (part.index + 1) // part.of
    ranges, before = [], 0
    for count in rows:
        first = min(max(low - before, 0), count)
        ranges.append((first, min(max(high - before, first), count)))
        before += count
    return ranges


def deal_files(sizes: Sequence[int], part: Partition) -> set[int]:
    """Returns the numbers of the files that belong to a part, dealt whole: the largest first, to the smallest part."""
    totals = [0] * part.of
    mine = set()
    for number in sorted(range(len(sizes)), key=lambda number: (-sizes[number], number)):
        target = min(range(part.of), key=lambda index: (totals[index], index))
        totals[target] += sizes[number]
        if target == part.index:
            mine.add(number)
    return mine
