"""`vote: majority`: the mean of those that agree, by an agreement graph.

In the spirit of Aspis (Konstantinidis and Ramamoorthy, arXiv 2108.02416), with a scale-free edge instead of a
tolerance: two replicas agree when the cosine of their updates is above a threshold and their norms are within a ratio.
With `margin`, a replica that is far from a closely agreeing majority loses its edges too.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

from strategies.voting.kernels import Dots, mean, median, survey
from strategies.voting.vote import LONGEST, RULES, Agreement, BlockVote, Decision, Verdict, middle, within_norm_ratio

TINY_RMS = 1e-9
"""Below this root mean square an update counts as zero, and two such updates agree whatever their direction."""

NEAR_COPY = 0.99
"""Cosine above which two replicas are no evidence of two nodes; honest ones, on text of their own, stay below."""


@RULES.register("majority")
def majority_rule(block: BlockVote) -> Decision:
    """Returns the mean if all agree, else the norm-clipped mean of the majority, else the norm-clipped median.

    Where all agree, a replica counts with at most `LONGEST` median norms. Two replicas that disagree leave the block as
    it is. If all agree and none is too long, one pass over the replicas is enough; otherwise there is a second one.
    """
    count = len(block.updates)
    if count == 1:
        return block.lone()
    sizes, dots = survey(block.updates, [1.0] * count, block.result)
    edges = _edges(sizes, dots, block.agreement, TINY_RMS * block.updates[0].numel() ** 0.5)
    if len(edges) == count * (count - 1) // 2:
        longest = LONGEST * middle(sizes)
        if max(sizes) > longest:
            mean(block.updates, [min(1.0, longest / size) if size else 1.0 for size in sizes], block.result)
        return block.result, Verdict(outcome="majority" if count == 2 else "unanimous", accepted=tuple(block.names))
    if count == 2:
        return None, Verdict(outcome="kept")
    counted = _majority(count, edges)
    if counted:
        mean([block.updates[i] for i in counted], _clip_scales([sizes[i] for i in counted]), block.result)
        verdict = block.verdict("majority", counted)
        # Two near-copies may be the work of one liar, who could so frame an honest node.
        framed = all(_near_copies(sizes, dots, i, j) for i, j in combinations(counted, 2))
        alone = verdict.outvoted[0] if len(verdict.outvoted) == 1 and not framed else None
        return block.result, replace(verdict, alone=alone)
    median(block.updates, _clip_scales(sizes), block.result)
    measured = replace(block, known_norms=list(sizes))
    return block.result, block.verdict("median", within_norm_ratio(measured))


def _edges(norms: Sequence[float], dots: Dots, agreement: Agreement, tiny: float) -> set[tuple[int, int]]:
    """Returns the pairs of replicas that agree."""
    edges = set()
    outliers = _outliers(norms, dots, agreement.margin)
    for i, j in combinations(range(len(norms)), 2):
        low, high = sorted((norms[i], norms[j]))
        alike = high <= agreement.norm_ratio * low and dots[i][j] > agreement.cosine * low * high
        if high <= tiny or (alike and not {i, j} & outliers):
            edges.add((i, j))
    return edges


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


def _clip_scales(norms: Sequence[float]) -> list[float]:
    """Returns the factors that shorten updates to their median norm; 1 for those that are not longer."""
    longest = middle(norms)
    return [1.0 if size <= longest else longest / size for size in norms]
