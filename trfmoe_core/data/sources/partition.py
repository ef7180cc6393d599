"""Divides a source among the nodes that share it: every file, row or document belongs to exactly one of them."""

from collections.abc import Sequence
from dataclasses import replace

from trfmoe_core.config.sources import Partition
from trfmoe_core.data.documents.records import Unit


def row_ranges(rows: Sequence[int], part: Partition) -> list[tuple[int, int]]:
    """Returns the range of rows (first, after the last) that `part` has of every file.

    A part is a run of rows over all files in order. Parts differ by one row at most.

    Args:
        rows: number of rows of every file.
        part: which part.
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
    """Returns the indices of the files of `part`. Files are dealt whole: the largest first, to the smallest part.

    Args:
        sizes: bytes of every file.
        part: which part.
    """
    totals = [0] * part.of
    mine = set()
    for number in sorted(range(len(sizes)), key=lambda number: (-sizes[number], number)):
        target = min(range(part.of), key=lambda index: (totals[index], index))
        totals[target] += sizes[number]
        if target == part.index:
            mine.add(number)
    return mine


def deal_documents(units: Sequence[Unit], part: Partition) -> list[Unit]:
    """Returns all units with options by which reading them keeps the documents of `part` only.

    Documents are dealt in turn. Every unit starts with another node, so that units with few documents even out.
    """
    return [
        replace(
            unit,
            options=replace(unit.options, index=(part.index + turn) % part.of, of=part.of),
            identity=(*unit.identity, "part", (part.index + turn) % part.of, part.of),
        )
        for turn, unit in enumerate(units)
    ]
