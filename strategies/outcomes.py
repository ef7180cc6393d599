"""Global blocks as a round may leave them: with the mean of all replicas that count, and without single terms of it."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from strategies.kernels import Chunks, empty, mean
from trfmoe_core.blocks import TRUNK, Blocks
from trfmoe_core.wire import Replica

Replicas = Mapping[str, Mapping[str, Replica]]
"""Node -> block -> update."""


def witnessed_mean(
    replicas: Mapping[str, Replica],
    scales: Mapping[str, float] | None = None,
    weights: Mapping[str, float] | None = None,
    result: Tensor | None = None,
) -> Tensor:
    """Returns the mean of one block's replicas, in the order of the nodes' names; the plain mean when nothing is set.

    Args:
        replicas: Node -> update of those who count; at least one.
        scales: Node -> multiplier of its replica, `Judgement.scales` of the block; 1 when absent.
        weights: Node -> weight in the mean; equal when absent.
        result: Float32 memory for the mean; new when absent.
    """
    names = sorted(replicas)
    result = empty(replicas[names[0]].numel()) if result is None else result
    mean([replicas[name] for name in names], _factors(names, scales or {}, weights), result)
    return result


class Outcomes:
    """What the round would make of the global blocks, `whole`, and what it would make of them without one node's terms.

    A term left out leaves the divisor as it is: what the node contributes is judged, not how much longer the others'
    step would be without it. Needs memory for two sets of blocks beside the base.

    Args:
        base: Global blocks that the round started from.
        replicas: Updates of all nodes, read where they lie.
        voters: Block -> nodes that count, in order; nodes are taken out of the lists by `remove`.
        scales: Block -> node -> multiplier of its replica; 1 when absent.
        weights: Node -> weight in the trunk's mean; equal when absent.
    """

    def __init__(
        self,
        base: Blocks,
        replicas: Replicas,
        voters: dict[str, list[str]],
        scales: Mapping[str, Mapping[str, float]],
        weights: Mapping[str, float] | None,
    ) -> None:
        self.base, self.replicas, self.voters, self.scales, self.weights = base, replicas, voters, scales, weights
        self.whole: Blocks = dict(base)
        self._scratch: Blocks = {}
        for block in voters:
            self._fill(block)

    def remove(self, node: str) -> None:
        """Takes a node out for good; the mean is that of the rest."""
        for block, names in self.voters.items():
            if node in names:
                names.remove(node)
                self._fill(block)

    def without(self, node: str) -> Blocks:
        """Returns the blocks without one node's terms; good until the next call."""
        blocks = dict(self.whole)
        for block, names in self.voters.items():
            if node in names:
                factors = _factors(names, self.scales.get(block, {}), self._weights(block))
                share = factors[names.index(node)] / len(names)
                if block not in self._scratch:
                    self._scratch[block] = empty(self.base[block].numel())
                whole, memory = self.whole[block], self._scratch[block]
                for where, (part,) in Chunks([self.replicas[node][block]]).rest():
                    torch.sub(whole[where], torch.from_numpy(part), alpha=share, out=memory[where])
                blocks[block] = memory
        return blocks

    def _fill(self, block: str) -> None:
        names = self.voters[block]
        if not names:
            self.whole[block] = self.base[block]
            return
        memory = self.whole[block] if self.whole[block] is not self.base[block] else empty(self.base[block].numel())
        replicas = {name: self.replicas[name][block] for name in names}
        witnessed_mean(replicas, self.scales.get(block), self._weights(block), memory)
        self.whole[block] = memory.add_(self.base[block])

    def _weights(self, block: str) -> Mapping[str, float] | None:
        return self.weights if block == TRUNK else None


def _factors(names: Sequence[str], scales: Mapping[str, float], weights: Mapping[str, float] | None) -> list[float]:
    shares = [1.0 if weights is None else weights[name] for name in names]
    even = len(set(shares)) == 1
    total = sum(shares)
    return [
        (1.0 if even else share * len(names) / total) * scales.get(name, 1.0)
        for name, share in zip(names, shares, strict=True)
    ]
