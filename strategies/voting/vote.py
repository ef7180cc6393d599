"""Turns the replicas of one block into one update and one verdict. Pure functions over flat float32 updates.

`median` is the coordinate-wise median (Yin et al., arXiv 1803.01498). `majority` is an agreement graph in the spirit of
Aspis (Konstantinidis and Ramamoorthy, arXiv 2108.02416), with a scale-free edge instead of a tolerance: two replicas
agree when the cosine of their updates is above a threshold and their norms are within a ratio. `mean` is there to
compare with. Where data are alike, a replica that is far from a majority that is close to itself loses its edges too.

All sums run in the order of the nodes' names, never of arrival. The arithmetic itself stands in `kernels`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

from torch import Tensor

from strategies.voting.kernels import Dots, empty, identical, mean, median, norm, survey
from trfmoe_core.wire import Replica

__all__ = ["Agreement", "Outcome", "Rule", "Verdict", "alike", "median", "norm", "vote"]

Rule = Literal["majority", "median", "mean"]
Outcome = Literal["unanimous", "majority", "median", "mean", "unverified", "kept"]

TINY_RMS = 1e-9
"""Below this root mean square an update counts as zero, and two such updates agree whatever their direction."""

UNVERIFIED_STEP = 1 / 3
"""Share of a step that a block takes when only one replica is left."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """When two replicas agree: cosine above `cosine`, norms within `norm_ratio` of each other, and neither is odd.

    A replica's closeness is the least cosine to those with which it would make a majority. It is odd when that is more
    than `margin` below the closest one's; 2 and more is never.
    """

    cosine: float = -0.1
    norm_ratio: float = 3.0
    margin: float = 2.0


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the vote decided about one block, and about whom. Names are sorted."""

    outcome: Outcome
    accepted: tuple[str, ...] = ()
    outvoted: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    invalid: tuple[str, ...] = ()

    def absent(self, *, missing: Sequence[str], invalid: Sequence[str]) -> "Verdict":
        """Returns the verdict with the nodes that sent no usable replica."""
        return replace(self, missing=tuple(sorted(missing)), invalid=tuple(sorted(invalid)))


def vote(
    rule: Rule,
    replicas: Mapping[str, Replica],
    agreement: Agreement,
    *,
    norm_cap: float | None = None,
    may_be_unverified: bool = True,
    norms: Mapping[str, float] | None = None,
    result: Tensor | None = None,
) -> tuple[Tensor | None, Verdict]:
    """Returns the voted update (None: keep the block), float32, and the verdict.

    When all agree, one pass over the replicas is all it takes; otherwise there is a second one.

    Args:
        rule: How three or more replicas become one.
        replicas: Node name -> update, all finite, flat float32, bfloat16, int8 or int4, of one length.
        agreement: When two replicas agree.
        norm_cap: Largest norm that a lone replica's update may have before its step is shortened; None: none is known
            yet, so there is nothing to tell a step from a wreck, and a lone replica leaves the block as it is.
        may_be_unverified: Whether a lone replica may be accepted; False when it was the round before.
        norms: Node name -> norm of its replica by `norm`, for whoever has them already.
        result: Float32 memory for the update, of the replicas' length; new when absent. Overwritten in any case.
    """
    names = sorted(replicas)
    classes = alike(replicas)
    heads = [members[0] for members in classes]
    updates = [replicas[head] for head in heads]
    if not heads:
        return None, Verdict(outcome="kept")
    count = len(heads)
    known = None if norms is None else [norms[head] for head in heads]
    result = empty(updates[0].numel()) if result is None else result
    equal = [1.0] * count
    if rule == "mean" and len(names) > 1:
        mean(updates, equal, result)
        return result, Verdict(outcome="mean", accepted=tuple(names))
    if count == 1:
        if not may_be_unverified or norm_cap is None:
            return None, Verdict(outcome="kept")
        size = known[0] if known else norm(updates[0])
        scale = 1.0 if size <= norm_cap else norm_cap / size
        mean(updates, [UNVERIFIED_STEP * scale], result)
        return result, Verdict(outcome="unverified", accepted=tuple(names))
    if rule == "median" and count > 2:
        sizes = known or [norm(update) for update in updates]
        return median(updates, result=result), _named("median", classes, _within(sizes, agreement))

    sizes, dots = survey(updates, equal, result)
    edges = _edges(sizes, dots, agreement, TINY_RMS * updates[0].numel() ** 0.5)
    if len(edges) == count * (count - 1) // 2:
        return result, Verdict(outcome="majority" if count == 2 else "unanimous", accepted=tuple(names))
    if count == 2:
        return None, Verdict(outcome="kept")
    kept = _majority(count, edges)
    if kept:
        mean([updates[i] for i in kept], _clip_scales([sizes[i] for i in kept]), result)
        return result, _named("majority", classes, kept)
    median(updates, _clip_scales(sizes), result)
    return result, _named("median", classes, _within(sizes, agreement))


def alike(replicas: Mapping[str, Replica]) -> list[list[str]]:
    """Returns the nodes in classes whose replicas of one block are equal to the bit: a class counts once.

    Classes and nodes are in the order of the nodes' names; the first node of a class stands for it.
    """
    classes: list[list[str]] = []
    for name in sorted(replicas):
        for members in classes:
            if identical(replicas[members[0]], replicas[name]):
                members.append(name)
                break
        else:
            classes.append([name])
    return classes


def _edges(norms: Sequence[float], dots: Dots, agreement: Agreement, tiny: float) -> set[tuple[int, int]]:
    edges = set()
    odd = _odd(norms, dots, agreement.margin)
    for i, j in combinations(range(len(norms)), 2):
        low, high = sorted((norms[i], norms[j]))
        alike = high <= agreement.norm_ratio * low and dots[i][j] > agreement.cosine * low * high
        if high <= tiny or (alike and not {i, j} & odd):
            edges.add((i, j))
    return edges


def _odd(norms: Sequence[float], dots: Dots, margin: float) -> set[int]:
    count = len(norms)
    if margin >= 2 or count < 3:
        return set()

    def cosine(i: int, j: int) -> float:
        return dots[min(i, j)][max(i, j)] / max(norms[i] * norms[j], 1e-300)

    # With so many others a replica is a majority.
    needed = count // 2
    closeness = [sorted((cosine(i, j) for j in range(count) if j != i), reverse=True)[needed - 1] for i in range(count)]
    return {i for i in range(count) if closeness[i] < max(closeness) - margin}


def _majority(count: int, edges: set[tuple[int, int]]) -> list[int]:
    if count == 3:
        return sorted(next(iter(edges))) if len(edges) == 1 else []
    degree = [sum(i in edge for edge in edges) for i in range(count)]
    # With itself a majority: of five, two that lie together leave three that have two edges each.
    kept = [i for i in range(count) if degree[i] + 1 > count / 2]
    return kept if len(kept) > count / 2 else []


def _within(norms: Sequence[float], agreement: Agreement) -> list[int]:
    middle = _middle(norms)
    return [i for i, size in enumerate(norms) if size <= agreement.norm_ratio * middle]


def _named(outcome: Outcome, classes: list[list[str]], kept: Sequence[int]) -> Verdict:
    accepted = sorted(name for i in kept for name in classes[i])
    outvoted = sorted(name for i, members in enumerate(classes) if i not in kept for name in members)
    return Verdict(outcome=outcome, accepted=tuple(accepted), outvoted=tuple(outvoted))


def _clip_scales(norms: Sequence[float]) -> list[float]:
    middle = _middle(norms)
    return [1.0 if size <= middle else middle / size for size in norms]


def _middle(values: Sequence[float]) -> float:
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else 0.5 * (ordered[half - 1] + ordered[half])
