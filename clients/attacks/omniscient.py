"""Attacks by omniscient nodes, which see every honest update of the round before they send their own."""

from collections.abc import Callable, Sequence
from itertools import combinations

import torch
from torch import Tensor

from clients.attacks.base import Seen, update_attack
from trfmoe_core.blocks import Blocks


@update_attack("replicas", "sends the honest mean backwards, twice as long (arXiv 1903.03936)")
def inner_product(own: Blocks, seen: Seen) -> Blocks:
    """Returns -2 times the honest mean, so that the mean over three replicas has no length left."""
    return _from_honest(own, seen, lambda honest: _mean(honest) * -2.0)


@update_attack("replicas", "sends the honest mean less 1.5 standard deviations a coordinate (arXiv 1902.06083)")
def little_enough(own: Blocks, seen: Seen) -> Blocks:
    """Returns a value inside the honest crowd; where only one honest replica is, that replica."""
    return _from_honest(own, seen, _little_enough)


@update_attack("replicas", "pushes one honest update against the others' mean, no further than they differ")
def stays_close(own: Blocks, seen: Seen) -> Blocks:
    """Returns an update that is as near to an honest one as honest ones are to each other."""
    return _from_honest(own, seen, _stays_close)


def _from_honest(own: Blocks, seen: Seen, make: Callable[[Sequence[Tensor]], Tensor]) -> Blocks:
    """Returns what `make` makes of each block's honest replicas; the node's own update where there are none."""
    found = {block: [blocks[block] for blocks in seen.honest if block in blocks] for block in own}
    return {block: make(updates) if updates else own[block] for block, updates in found.items()}


def _little_enough(honest: Sequence[Tensor]) -> Tensor:
    if len(honest) < 2:
        return _mean(honest)
    return _mean(honest) - 1.5 * torch.stack(list(honest)).std(dim=0)


def _stays_close(honest: Sequence[Tensor], share: float = 0.9) -> Tensor:
    """The push is `share` of the mean distance between two honest replicas; of the norm where there is only one."""
    pairs = [float((a - b).norm()) for a, b in combinations(honest, 2)]
    distance = sum(pairs) / len(pairs) if pairs else float(honest[0].norm())
    mean = _mean(honest)
    return honest[0] - mean * (share * distance / max(float(mean.norm()), 1e-30))


def _mean(updates: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(updates)).mean(dim=0)
