"""Divides a source among the nodes that share it: every piece of text belongs to exactly one of them."""

import heapq
from collections.abc import Sequence
from dataclasses import replace

from trfmoe_core.config.sources import Partition
from trfmoe_core.data.documents.records import ReadOptions, Unit
from trfmoe_core.data.formats.base import format_of

_FAIR = 0.75


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


def deal_files(sizes: Sequence[int], of: int) -> list[int]:
    """Returns the part of every file. Files are dealt whole: the largest first, to the smallest part.

    Args:
        sizes: bytes of every file.
        of: number of parts.
    """
    totals = [(0, index) for index in range(of)]
    targets = [0] * len(sizes)
    for number in _largest_first(sizes):
        total, targets[number] = heapq.heappop(totals)
        heapq.heappush(totals, (total + sizes[number], targets[number]))
    return targets


def _largest_first(sizes: Sequence[int]) -> list[int]:
    return sorted(range(len(sizes)), key=lambda number: (-sizes[number], number))


def divided_files(sizes: Sequence[int], of: int) -> set[int]:
    """Returns the indices of the files that are not dealt whole, but each divided among all parts.

    They are the largest ones, and as few as it takes to give every part three quarters of its fair share.

    Args:
        sizes: bytes of every file.
        of: number of parts.
    """
    order = _largest_first(sizes)
    number = 0
    while number < len(order):
        rest = [sizes[one] for one in order[number:]]
        totals = [sum(sizes[one] for one in order[:number]) / of] * of
        for size, target in zip(rest, deal_files(rest, of), strict=True):
            totals[target] += size
        if min(totals) >= _FAIR * sum(sizes) / of:
            break
        number = max(number + 1, number * 5 // 4)
    return set(order[:number])


def deal_units(units: Sequence[Unit], part: Partition, piece_bytes: int) -> list[Unit]:
    """Returns the units that this node reads, with options by which reading them keeps the text of `part` only.

    Files whose format is shared by files are dealt whole where that is fair (`divided_files`). Of all others every node
    reads its own pieces or rows. Every unit starts with another node, so that units with few documents even out.

    Args:
        units: units of any format, each a whole file or a part of one.
        part: which part.
        piece_bytes: size of the pieces in which documents are divided.
    """
    rules = [format_of(unit.file.kind).shared_by for unit in units]
    whole = [number for number, rule in enumerate(rules) if rule == "files"]
    sizes = [stamp.size if (stamp := units[number].file.stamp) else 0 for number in whole]
    divided = divided_files(sizes, part.of)
    rest = [number for number in range(len(whole)) if number not in divided]
    targets = dict(
        zip((whole[number] for number in rest), deal_files([sizes[one] for one in rest], part.of), strict=True)
    )
    mine = []
    for turn, (unit, rule) in enumerate(zip(units, rules, strict=True)):
        if turn in targets:
            if targets[turn] == part.index:
                mine.append(unit)
            continue
        index = (part.index + turn) % part.of
        options = replace(
            unit.options, index=index, of=part.of, piece_bytes=piece_bytes if rule in ("documents", "files") else 0
        )
        identity = (*unit.identity, *shared_identity(options)) if unit.identity else ()
        mine.append(replace(unit, options=options, identity=identity))
    return mine


def shared_identity(options: ReadOptions) -> tuple[object, ...]:
    """Returns what a unit's identity needs besides its content if nodes share it; JSON values."""
    return ("part", options.index, options.of, options.piece_bytes) if options.of > 1 else ()
