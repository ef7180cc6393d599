import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trfmoe_core.data.batches.best_fit import pack


def one_by_one(sizes: list[int], capacity: int) -> list[int]:
    """Returns the room that best fit decreasing leaves in every row, found item by item."""
    rooms: list[int] = []
    for size in sorted(sizes, reverse=True):
        fitting = [(room, row) for row, room in enumerate(rooms) if room >= size]
        if fitting:
            rooms[min(fitting)[1]] -= size
        else:
            rooms.append(capacity - size)
    return sorted(rooms)


@given(st.data(), st.integers(1, 40))
def test_rows_are_those_of_best_fit_decreasing_item_by_item(data: st.DataObject, capacity: int) -> None:
    sizes = data.draw(st.lists(st.integers(1, capacity), min_size=1, max_size=60))
    packed = pack(np.array(sizes), capacity)
    rows = np.split(packed.slot_size, packed.row_slots[1:-1])
    assert packed.num_rows == len(rows)
    assert sorted(packed.slot_size.tolist()) == sorted(sizes)
    assert sorted(capacity - int(row.sum()) for row in rows) == one_by_one(sizes, capacity)


def test_many_items_take_no_longer_than_their_sizes() -> None:
    # A hundred million comparisons one by one; here, a few thousand groups.
    sizes = 1 + np.random.default_rng(0).integers(0, 257, 300_000)
    packed = pack(sizes, 257)
    assert sizes.sum() / packed.num_rows / 257 > 0.99
