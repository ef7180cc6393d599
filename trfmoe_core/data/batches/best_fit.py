"""Packs whole items into rows of a fixed size by best fit, in time that hardly grows with the number of items."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class RowPlan:
    """A plan that says which sizes share a row. A slot is a place for one item.

    Attributes:
        slot_size: (slots,) size of every slot, row after row.
        row_slots: (rows + 1,) index of each row's first slot; the last entry is the number of slots.
    """

    slot_size: Ints
    row_slots: Ints

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return int(self.row_slots.size) - 1


def pack(sizes: Ints, capacity: int) -> RowPlan:
    """Returns rows of at most `capacity` for items of these `sizes` (1..capacity), by best fit decreasing.

    Each item, the largest first, goes into the fullest row that has room for it (arXiv 2404.10830). Items of one size
    are interchangeable, and so are rows with equal contents, so groups of them are placed at once: the work grows with
    the number of different sizes and not with the number of items.
    """
    # Rows by their free room. A group is (sizes of the items in the row, number of such rows).
    by_room: list[list[tuple[tuple[int, ...], int]]] = [[] for _ in range(capacity + 1)]
    values, counts = np.unique(sizes, return_counts=True)
    for size, left in zip(values[::-1].tolist(), counts[::-1].tolist(), strict=True):
        for room in range(size, capacity + 1):
            # The fullest rows first, and at last as many new rows as are needed.
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
    return RowPlan(np.concatenate(slots), row_slots)
