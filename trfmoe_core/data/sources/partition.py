"""A data set that several nodes share, dealt out: every part belongs to exactly one of them."""

from collections.abc import Sequence

from trfmoe_core.config.sources import Partition


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
