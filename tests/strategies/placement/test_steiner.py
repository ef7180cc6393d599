"""Steiner triple systems: every pair of points exactly once."""

from itertools import combinations

import pytest

from strategies.placement.steiner import admissible, next_admissible, triple_system
from trfmoe_core.errors import PlacementError


@pytest.mark.parametrize("points", [v for v in range(3, 110) if v % 6 in (1, 3)])
def test_every_pair_lies_in_exactly_one_triple(points: int) -> None:
    triples = triple_system(points)
    assert len(triples) == points * (points - 1) // 6
    pairs = [pair for triple in triples for pair in combinations(triple, 2)]
    assert len(pairs) == len(set(pairs)) == points * (points - 1) // 2
    assert all(0 <= a < b < c < points for a, b, c in triples)


def test_sizes_without_a_system_are_refused_and_the_next_is_named() -> None:
    assert [v for v in range(1, 20) if admissible(v)] == [3, 7, 9, 13, 15, 19]
    assert [next_admissible(v) for v in (1, 3, 4, 8, 10, 14, 1000)] == [3, 3, 7, 9, 13, 15, 1003]
    with pytest.raises(PlacementError, match="of 8 points; the next one has 9"):
        triple_system(8)
