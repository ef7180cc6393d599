"""Finds nodes whose updates point away from the others', over all of their blocks together.

Under Muon the updates of honest nodes become nearly orthogonal in late rounds: the cosine of a single block then says
nothing, but its mean over a node's blocks has a small standard error and stays above zero.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from math import sqrt
from statistics import fmean, stdev

from strategies.voting.kernels import survey
from trfmoe_core.blocks import TRUNK
from trfmoe_core.wire import Replica

STANDARD_ERRORS = 3.0
"""How far below the threshold a mean must lie."""

TRUNK_PIECES = 16
"""The trunk counts as so many blocks: nodes of a large federation share little else."""

FEWEST_PARTS = 4
"""Two nodes that have fewer parts in common are not compared."""


def pooled_cosines(
    replicas: Mapping[str, Mapping[str, Replica]], holders: Mapping[str, Sequence[str]]
) -> dict[tuple[str, str], tuple[float, float]]:
    """Returns, for two nodes in the order of their names, mean and standard error of their blocks' cosines.

    Args:
        replicas: Node -> block -> update.
        holders: Block -> nodes that hold it.
    """
    found: dict[tuple[str, str], list[float]] = {}
    for block, names in holders.items():
        present = sorted(name for name in names if block in replicas.get(name, {}))
        if len(present) < 2:
            continue
        updates = [replicas[name][block] for name in present]
        step = -(-updates[0].numel() // (TRUNK_PIECES if block == TRUNK else 1))
        for begin in range(0, updates[0].numel(), step):
            parts = [update[begin : begin + step] for update in updates]
            norms, dots = survey(parts, [1.0] * len(parts))
            for i, j in combinations(range(len(present)), 2):
                if norms[i] > 0 and norms[j] > 0:
                    found.setdefault((present[i], present[j]), []).append(dots[i][j] / (norms[i] * norms[j]))
    return {
        pair: (fmean(cosines), stdev(cosines) / sqrt(len(cosines)))
        for pair, cosines in found.items()
        if len(cosines) >= FEWEST_PARTS
    }


def opposed(cosines: Mapping[tuple[str, str], tuple[float, float]], threshold: float) -> list[str]:
    """Returns the nodes that point away from more than half of those with whom they are compared.

    A node is compared with `n` others, and goes with those whose mean cosine with it may be above the threshold. It is
    found if it goes with fewer than `n // 2`; with three nodes, with nobody. A single liar can do this to nobody: an
    honest node still goes with the other `n - 1`.

    Args:
        cosines: As `pooled_cosines` returns them.
        threshold: Mean cosine above which two nodes go together.
    """
    compared, together = Counter[str](), Counter[str]()
    for pair, cosine in cosines.items():
        compared.update(pair)
        if _together(cosine, threshold):
            together.update(pair)
    return sorted(name for name, count in compared.items() if together[name] < count // 2)


def contradicting(cosines: Mapping[tuple[str, str], tuple[float, float]], threshold: float) -> list[tuple[str, str]]:
    """Returns the pairs of nodes that point away from each other, one of which lies, without a sign which of them.

    Honest nodes never oppose each other, so a liar is in every pair. A node that nobody opposes is honest then, if one
    node lies. Pairs with a node that `opposed` finds are settled, and are not returned; nor is any pair if fewer others
    are left than there are pairs: that needs several liars, and who is left might be one of them.

    Args:
        cosines: As `pooled_cosines` returns them.
        threshold: Mean cosine above which two nodes go together.
    """
    settled = set(opposed(cosines, threshold))
    pairs = [
        pair for pair, cosine in sorted(cosines.items()) if not settled & set(pair) and not _together(cosine, threshold)
    ]
    within = {name for pair in pairs for name in pair}
    others = {name for pair in cosines for name in pair} - within - settled
    return pairs if 2 * len(others) >= len(within) else []


def _together(cosine: tuple[float, float], threshold: float) -> bool:
    mean, error = cosine
    return mean + STANDARD_ERRORS * error > threshold
