"""`vote: majority`: the mean of those that agree, by an agreement graph.

In the spirit of Aspis (Konstantinidis and Ramamoorthy, arXiv 2108.02416), with a scale-free edge instead of a
tolerance: two replicas agree when the cosine of their updates is above a threshold and their norms are within a ratio.
With `margin`, a replica that is far from a closely agreeing majority loses its edges too.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from math import sqrt

from strategies.voting.block_parts import Part
from strategies.voting.kernels import Dots, mean, median, survey
from strategies.voting.vote import (
    LONGEST,
    RULES,
    BlockVote,
    Decision,
    Verdict,
    shortening,
    within_norm_ratio,
)

TINY_RMS = 1e-9
"""Below this root mean square an update counts as zero, and two such updates agree whatever their direction."""

NEAR_COPY = 0.99
"""Cosine above which two replicas are no evidence of two nodes; honest ones, on text of their own, stay below."""


@RULES.register("majority")
def majority_rule(block: BlockVote) -> Decision:
    """Returns the mean if all agree, else the norm-clipped mean of the majority, else the norm-clipped median.

    Where all agree, no part of a replica counts with more than `LONGEST` median norms of this part. Two replicas that
    disagree leave the block as it is. If all agree and no part is too long, one pass over the replicas is enough;
    otherwise there is a second one.
    """
    count = len(block.updates)
    if count == 1:
        return block.lone()
    part_sizes, dots = _survey(block)
    sizes = [sqrt(dots[i][i]) for i in range(count)]
    tiny = TINY_RMS * block.updates[0].numel() ** 0.5
    agreeing = _agreeing(sizes, dots, block.agreement.cosine, tiny)
    # If no part is much longer than another's, nor is the whole.
    for part, lengths in zip(block.parts, part_sizes, strict=True):
        agreeing -= _unlike(part, lengths, block.agreement.norm_ratio)
    outliers = _outliers(sizes, dots, block.agreement.margin)
    edges = {(i, j) for i, j in agreeing if not {i, j} & outliers or max(sizes[i], sizes[j]) <= tiny}
    if len(edges) == count * (count - 1) // 2:
        for part, lengths in zip(block.parts, part_sizes, strict=True):
            factors = shortening(lengths, LONGEST)
            for where in part if min(factors) < 1 else ():
                mean(block.updates, factors, block.result, where)
        return block.result, Verdict(outcome="majority" if count == 2 else "unanimous", accepted=tuple(block.names))
    if count == 2:
        return None, Verdict(outcome="kept")
    counted = _majority(count, edges)
    if counted:
        for part, lengths in zip(block.parts, part_sizes, strict=True):
            factors = shortening([lengths[i] for i in counted])
            for where in part:
                mean([block.updates[i] for i in counted], factors, block.result, where)
        verdict = block.verdict("majority", counted)
        # A liar can be closer to one honest node than another is, and all the more a near-copy: that is no strike.
        framed = all(_near_copies(sizes, dots, i, j) for i, j in combinations(counted, 2)) or any(
            1 + sum(i in edge for edge in agreeing) > count / 2 for i in range(count) if i not in counted
        )
        alone = verdict.outvoted[0] if len(verdict.outvoted) == 1 and not framed else None
        return block.result, replace(verdict, alone=alone)
    for part, lengths in zip(block.parts, part_sizes, strict=True):
        for where in part:
            median(block.updates, shortening(lengths), block.result, where)
    measured = replace(block, known_norms=list(sizes))
    return block.result, block.verdict("median", within_norm_ratio(measured))


def _survey(block: BlockVote) -> tuple[list[list[float]], Dots]:
    """Returns the norms of each part and all inner products, and leaves the mean in `block.result`."""
    count = len(block.updates)
    part_sizes, total = [], [[0.0] * count for _ in range(count)]
    for part in block.parts:
        squares = [0.0] * count
        for where in part:
            dots = survey(block.updates, [1.0] * count, block.result, where)[1]
            for i in range(count):
                squares[i] += dots[i][i]
                for j in range(i, count):
                    total[i][j] += dots[i][j]
        part_sizes.append([sqrt(square) for square in squares])
    return part_sizes, total


def _agreeing(norms: Sequence[float], dots: Dots, cosine: float, tiny: float) -> set[tuple[int, int]]:
    """Returns the pairs of replicas that agree in direction."""
    return {
        (i, j)
        for i, j in combinations(range(len(norms)), 2)
        if max(norms[i], norms[j]) <= tiny or dots[i][j] > cosine * norms[i] * norms[j]
    }


def _unlike(part: Part, norms: Sequence[float], norm_ratio: float) -> set[tuple[int, int]]:
    """Returns the pairs of replicas of which one is much longer in a part than the other."""
    tiny = TINY_RMS * sum(where.stop - where.start for where in part) ** 0.5
    return {
        (i, j)
        for i, j in combinations(range(len(norms)), 2)
        if max(norms[i], norms[j]) > max(tiny, norm_ratio * min(norms[i], norms[j]))
    }


def _outliers(norms: Sequence[float], dots: Dots, margin: float) -> set[int]:
    count = len(norms)
    if margin >= 2 or count < 3:
        return set()

    def cosine(i: int, j: int) -> float:
        # That a copy is close is no evidence against those that are not.
        if _near_copies(norms, dots, i, j):
            return -1.0
        return dots[min(i, j)][max(i, j)] / max(norms[i] * norms[j], 1e-300)

    # Together with this many others, a replica is a majority.
    needed = count // 2
    closeness = [sorted((cosine(i, j) for j in range(count) if j != i), reverse=True)[needed - 1] for i in range(count)]
    return {i for i in range(count) if closeness[i] < max(closeness) - margin}


def _near_copies(norms: Sequence[float], dots: Dots, i: int, j: int) -> bool:
    return dots[min(i, j)][max(i, j)] > NEAR_COPY * norms[i] * norms[j]


def _majority(count: int, edges: set[tuple[int, int]]) -> list[int]:
    if count == 3:
        return sorted(next(iter(edges))) if len(edges) == 1 else []
    degree = Counter(end for edge in edges for end in edge)
    # A replica and its peers are a majority: if two of five lie together, the other three have two edges each.
    kept = [i for i in range(count) if degree[i] + 1 > count / 2]
    return kept if len(kept) > count / 2 else []
