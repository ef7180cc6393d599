"""What a faulty or hostile node sends in the place of its update. Pure functions over one block's update.

An update is a flat float32 vector. The first part needs the node's own update alone; the second knows the honest
replicas of the block too, which no real node does: the worst case, for drills in one process.
"""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

APART = 1e-3
"""Noise relative to a lie that keeps two of them from being equal to the bit: equal replicas count once."""


def sign_flip(update: Tensor) -> Tensor:
    """Returns the update backwards: ascent instead of descent."""
    return -update


def scale(update: Tensor, factor: float) -> Tensor:
    """Returns the update times `factor`."""
    return update * factor


def zero(update: Tensor) -> Tensor:
    """Returns no update at all: a freeloader."""
    return torch.zeros_like(update)


def nan(update: Tensor) -> Tensor:
    """Returns the update with every value NaN."""
    return torch.full_like(update, float("nan"))


def inf(update: Tensor) -> Tensor:
    """Returns the update with its first value infinite: one is enough to spoil a sum."""
    spoilt = update.clone()
    spoilt[:1] = float("inf")
    return spoilt


def gaussian(update: Tensor, factor: float, generator: torch.Generator) -> Tensor:
    """Returns noise whose norm is `abs(factor)` times the update's."""
    noise = torch.randn(update.shape, generator=generator)
    return noise * (abs(factor) * float(update.norm()) / max(float(noise.norm()), 1e-30))


def inner_product(honest: Sequence[Tensor], strength: float = 2.0) -> Tensor:
    """Returns `-strength` times the honest mean, so that the whole mean points backwards (arXiv 1903.03936)."""
    return _mean(honest) * -strength


def little_enough(honest: Sequence[Tensor], deviations: float = 1.5) -> Tensor:
    """Returns the honest mean less `deviations` standard deviations a coordinate: inside the crowd (arXiv 1902.06083).

    With one honest replica there is no deviation to hide in, and the result is that replica.
    """
    if len(honest) < 2:
        return _mean(honest)
    return _mean(honest) - deviations * torch.stack(list(honest)).std(dim=0)


def stays_close(honest: Sequence[Tensor], share: float = 0.9) -> Tensor:
    """Returns the first honest replica, pushed against the honest mean.

    The push is `share` of the mean distance between two honest replicas, so by distance the result is as near to one
    of them as they are to each other. With one honest replica its norm takes that distance's place.
    """
    pairs = [float((a - b).norm()) for a, b in combinations(honest, 2)]
    distance = sum(pairs) / len(pairs) if pairs else float(honest[0].norm())
    mean = _mean(honest)
    return honest[0] - mean * (share * distance / max(float(mean.norm()), 1e-30))


def _mean(updates: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(updates)).mean(dim=0)
