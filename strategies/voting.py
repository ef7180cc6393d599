"""Turns the replicas of one block into one update and one verdict. Pure functions over flat float32 updates.

`median` is the coordinate-wise median (Yin et al., arXiv 1803.01498). `majority` is an agreement graph in the spirit of
Aspis (Konstantinidis and Ramamoorthy, arXiv 2108.02416), with a scale-free edge instead of a tolerance: two replicas
agree when the cosine of their updates is above a threshold and their norms are within a ratio. `mean` is there to
compare with.

All sums run in the order of the nodes' names, never of arrival, and in chunks that stay in the second-level cache.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor

Rule = Literal["majority", "median", "mean"]
Outcome = Literal["unanimous", "majority", "median", "mean", "unverified", "kept"]

CHUNK = 65_536
"""Values of one chunk: three inputs, scratch and output of 256 KiB each stay in 2 MiB of cache."""

TINY_RMS = 1e-9
"""Below this root mean square an update counts as zero, and two such updates agree whatever their direction."""

UNVERIFIED_STEP = 1 / 3
"""Share of a step that a block takes when only one replica is left."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """When two replicas agree: cosine above `cosine` and norms within `norm_ratio` of each other."""

    cosine: float = -0.2
    norm_ratio: float = 3.0


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
    replicas: Mapping[str, Tensor],
    agreement: Agreement,
    *,
    weights: Mapping[str, float] | None = None,
    norm_cap: float | None = None,
    may_be_unverified: bool = True,
) -> tuple[Tensor | None, Verdict]:
    """Returns the voted update (None: keep the block) and the verdict.

    Args:
        rule: How three or more replicas become one.
        replicas: Node name -> update, all finite, flat float32, of one length.
        agreement: When two replicas agree.
        weights: Node name -> weight in a mean; equal when absent. Ignored by `median`.
        norm_cap: Largest norm that a lone replica's update may have before its step is shortened.
        may_be_unverified: Whether a lone replica may be accepted; False when it was the round before.
    """
    names = sorted(replicas)
    classes = _identical(names, replicas)
    heads = [members[0] for members in classes]
    updates = [replicas[head] for head in heads]
    shares = [1.0 if weights is None else weights[head] for head in heads]
    if not heads:
        return None, Verdict(outcome="kept")
    if rule == "mean":
        return _mean(updates, shares), Verdict(outcome="mean", accepted=tuple(names))
    if len(heads) == 1:
        return _lone(updates[0], names, norm_cap, may_be_unverified)

    norms, edges = _agreement_graph(updates, agreement)
    if len(heads) == 2:
        if edges:
            return _mean(updates, shares), Verdict(outcome="majority", accepted=tuple(names))
        return None, Verdict(outcome="kept")
    if rule == "median":
        beyond = _beyond(norms, agreement)
        return median(updates), _named("median", classes, [i for i in range(len(heads)) if i not in beyond])
    if len(edges) == len(heads) * (len(heads) - 1) // 2:
        return _mean(updates, shares), Verdict(outcome="unanimous", accepted=tuple(names))
    kept = _majority(len(heads), edges)
    if kept:
        scales = _clip_scales([norms[i] for i in kept])
        update = _mean([updates[i] for i in kept], [shares[i] for i in kept], scales)
        return update, _named("majority", classes, kept)
    beyond = _beyond(norms, agreement)
    update = median(updates, _clip_scales(norms))
    return update, _named("median", classes, [i for i in range(len(heads)) if i not in beyond])


def median(updates: Sequence[Tensor], scales: Sequence[float] | None = None) -> Tensor:
    """Returns the coordinate-wise median of `scales[i] * updates[i]`; equal to `numpy.median` bit for bit.

    Three inputs take `max(min(a, b), min(max(a, b), c))`; other counts are sorted.
    """
    result = torch.empty_like(updates[0])
    for start, stop in _chunks(result.numel()):
        parts = [update[start:stop] for update in updates]
        if scales is not None:
            parts = [part if scale == 1 else part * scale for part, scale in zip(parts, scales, strict=True)]
        out = result[start:stop]
        if len(parts) == 3:
            low = torch.minimum(parts[0], parts[1])
            torch.maximum(parts[0], parts[1], out=out)
            torch.minimum(out, parts[2], out=out)
            torch.maximum(out, low, out=out)
        else:
            ordered = torch.stack(parts).sort(dim=0).values
            middle = len(parts) // 2
            if len(parts) % 2:
                out.copy_(ordered[middle])
            else:
                torch.add(ordered[middle - 1], ordered[middle], out=out).mul_(0.5)
    return result


def norm(update: Tensor) -> float:
    """Returns the Euclidean norm, accumulated in double precision over chunks; not finite if any value is not."""
    return math.sqrt(_dots([update])[0][0])


def _mean(updates: Sequence[Tensor], shares: Sequence[float], scales: Sequence[float] | None = None) -> Tensor:
    total = sum(shares)
    equal = len(set(shares)) == 1
    result = torch.empty_like(updates[0])
    for start, stop in _chunks(result.numel()):
        out = result[start:stop]
        for i, update in enumerate(updates):
            factor = (1.0 if equal else shares[i] * len(updates) / total) * (1.0 if scales is None else scales[i])
            if i == 0:
                torch.mul(update[start:stop], factor, out=out)
            else:
                out.add_(update[start:stop], alpha=factor)
        out.div_(len(updates))
    return result


def _lone(
    update: Tensor, names: list[str], norm_cap: float | None, may_be_unverified: bool
) -> tuple[Tensor | None, Verdict]:
    if not may_be_unverified:
        return None, Verdict(outcome="kept")
    size = norm(update)
    scale = 1.0 if norm_cap is None or size <= norm_cap else norm_cap / size
    return update * (UNVERIFIED_STEP * scale), Verdict(outcome="unverified", accepted=tuple(names))


def _identical(names: list[str], replicas: Mapping[str, Tensor]) -> list[list[str]]:
    classes: list[list[str]] = []
    for name in names:
        for members in classes:
            if torch.equal(replicas[members[0]], replicas[name]):
                members.append(name)
                break
        else:
            classes.append([name])
    return classes


def _agreement_graph(updates: Sequence[Tensor], agreement: Agreement) -> tuple[list[float], set[tuple[int, int]]]:
    dots = _dots(updates)
    norms = [math.sqrt(dots[i][i]) for i in range(len(updates))]
    tiny = TINY_RMS * updates[0].numel() ** 0.5
    edges = set()
    for i, j in combinations(range(len(updates)), 2):
        low, high = sorted((norms[i], norms[j]))
        alike = high <= agreement.norm_ratio * low and dots[i][j] > agreement.cosine * low * high
        if high <= tiny or alike:
            edges.add((i, j))
    return norms, edges


def _dots(updates: Sequence[Tensor]) -> list[list[float]]:
    count = len(updates)
    total = [[0.0] * count for _ in range(count)]
    for start, stop in _chunks(updates[0].numel()):
        parts = [update[start:stop] for update in updates]
        for i in range(count):
            for j in range(i, count):
                total[i][j] += float(torch.dot(parts[i], parts[j]))
    return total


def _majority(count: int, edges: set[tuple[int, int]]) -> list[int]:
    if count == 3:
        return sorted(next(iter(edges))) if len(edges) == 1 else []
    degree = [sum(i in edge for edge in edges) for i in range(count)]
    kept = [i for i in range(count) if degree[i] >= count / 2]
    return kept if len(kept) > count / 2 else []


def _beyond(norms: Sequence[float], agreement: Agreement) -> list[int]:
    middle = _middle(norms)
    return [i for i, size in enumerate(norms) if size > agreement.norm_ratio * middle]


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


def _chunks(total: int) -> Iterator[tuple[int, int]]:
    for start in range(0, total, CHUNK):
        yield start, min(start + CHUNK, total)
