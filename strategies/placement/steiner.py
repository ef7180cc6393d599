"""Steiner triple systems: triples of v points in which every two points meet exactly once.

They exist exactly where v = 1 or 3 (mod 6) and have v(v-1)/6 triples, (v-1)/2 through every point. Placed on one, any
two nodes share one expert and no more. Constructions after Bose (1939) for 6t+3 and Skolem (1958) for 6t+1, in the
form of Lindner and Rodger, *Design Theory*, chapter 1.
"""

from itertools import combinations

from trfmoe_core.errors import PlacementError


def admissible(points: int) -> bool:
    """Returns whether a Steiner triple system of that many points exists."""
    return points >= 3 and points % 6 in (1, 3)


def next_admissible(points: int) -> int:
    """Returns the least number of points, at least `points`, for which a system exists."""
    points = max(points, 3)
    while not admissible(points):
        points += 1
    return points


def triple_system(points: int) -> list[tuple[int, int, int]]:
    """Returns the triples of a Steiner system on points 0..v-1, each sorted, the same at every call.

    Raises:
        PlacementError: where none exists.
    """
    if not admissible(points):
        raise PlacementError(
            f"there is no Steiner triple system of {points} points; the next one has {next_admissible(points)}"
        )
    triples = _bose(points // 6) if points % 6 == 3 else _skolem(points // 6)
    return sorted((a, b, c) for a, b, c in map(sorted, triples))


def _bose(t: int) -> list[tuple[int, int, int]]:
    """Points (x, i) with x in Z_n, n = 2t+1, i in Z_3, over the idempotent commutative quasigroup (x+y)(t+1) mod n."""
    n = 2 * t + 1
    triples = [(x, x + n, x + 2 * n) for x in range(n)]
    for x, y in combinations(range(n), 2):
        product = (x + y) * (t + 1) % n
        triples += [(x + i * n, y + i * n, product + (i + 1) % 3 * n) for i in range(3)]
    return triples


def _skolem(t: int) -> list[tuple[int, int, int]]:
    """Points (x, i) with x in Z_n, n = 2t, and one more, over the half-idempotent commutative quasigroup of Z_n."""
    n = 2 * t
    extra = 3 * n
    triples = [(x, x + n, x + 2 * n) for x in range(t)]
    triples += [(extra, x + t + i * n, x + (i + 1) % 3 * n) for x in range(t) for i in range(3)]
    for x, y in combinations(range(n), 2):
        total = (x + y) % n
        product = total // 2 + (t if total % 2 else 0)
        triples += [(x + i * n, y + i * n, product + (i + 1) % 3 * n) for i in range(3)]
    return triples
