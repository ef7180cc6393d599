"""Whole items into rows of a fixed size, best fit first, in time that hardly grows with the number of items."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Packed:
    """Which sizes share a row.

    Attributes:
        slot_size: (slots,) the size of every item's place, row after row.
        row_slots: (rows + 1,) where each row's places begin in `slot_size`; the last entry is the number of slots.
    """

    slot_size: Ints
    row_slots: Ints

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return int(self.row_slots.size) - 1


def pack(sizes: Ints, capacity: int) -> Packed:
    """Returns rows of at most `capacity` that hold items of these sizes (1..capacity), best fit decreasing.

    Each item, the largest first, goes into the fullest row that still has room for it (arXiv 2404.10830). Items of one
    size are the same here, and so are rows of the same content, so whole groups are placed at once: the work grows
    with the number of different sizes, not of items.
    """
    # Rows by the room that they have left; a group is (sizes of its items, how many such rows).
    by_room: list[list[tuple[tuple[int, ...], int]]] = [[] for _ in range(capacity + 1)]
    values, counts = np.unique(sizes, return_counts=True)
    for size, left in zip(values[::-1].tolist(), counts[::-1].tolist(), strict=True):
        for room in range(size, capacity + 1):
            # The fullest rows first; where there are none left, as many new ones as it takes.
            groups = by_room[room] if room < capacity else [((), left)]
            kept: list[tuple[tuple[int, ...], int]] = []
            for content, rows in groups:
                each = room // size
                full = min(rows, left // each)
                rest = left - full * each if full < rows else 0
                left -= full * each + min(rest, each)
                for items, number in ((each, full), (min(rest, each), 1 if rest else 0)):
                    if number:
                        by_room[room - items * size].append((content + (size,) * items, number))
                        rows -= number
                if rows and content:
                    kept.append((content, rows))
            by_room[room] = kept
            if not left:
                break
    slots: list[Ints] = []
    lengths: list[Ints] = []
    for groups in by_room:
        for content, rows in groups:
            slots.append(np.tile(np.array(content, dtype=np.int64), rows))
            lengths.append(np.full(rows, len(content), dtype=np.int64))
    row_slots = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(np.concatenate(lengths))])
    return Packed(np.concatenate(slots), row_slots)
