"""Candidate models of a round: the global blocks plus the mean of the replicas, with or without some terms."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from strategies.voting.block_parts import Lengthened
from strategies.voting.kernels import Chunks, empty, mean
from strategies.voting.vote import alike
from trfmoe_core.blocks import Blocks
from trfmoe_core.wire import Replica

Replicas = Mapping[str, Mapping[str, Replica]]
"""Node -> block -> update."""

Terms = Iterable[tuple[str, str]]
"""Pairs of a node and a block: the node's replica of it."""


def witnessed_mean(
    replicas: Mapping[str, Replica],
    scales: Lengthened = (),
    result: Tensor | None = None,
) -> Tensor:
    """Returns the mean of one block's replicas, in the order of the nodes' names; the plain mean when nothing is set.

    Args:
        replicas: Node -> update of those who count, no two alike; at least one.
        scales: `Judgement.scales` of the block; empty: no replica is too long.
        result: Float32 memory for the mean; new when absent.
    """
    names = sorted(replicas)
    result = empty(replicas[names[0]].numel()) if result is None else result
    for where, multipliers in _ranges(scales):
        factors = [multipliers.get(name, 1.0) for name in names]
        mean([replicas[name] for name in names], factors, result, where)
    return result


class CandidateModels:
    """The global blocks after the round (`whole`), and after the round without some terms of the mean.

    Leaving a term out does not change the divisor of the mean, so that the contribution of the node is judged and not
    the longer step of the others. Equal replicas are one term. Needs memory for two sets of blocks besides the base.

    Args:
        base: Global blocks that the round started from.
        replicas: Updates of all nodes, read where they lie.
        voters: Block -> nodes whose replicas of it count.
        scales: Block -> multipliers of the replicas that are too long; a block that is absent has none.
    """

    def __init__(
        self,
        base: Blocks,
        replicas: Replicas,
        voters: Mapping[str, Sequence[str]],
        scales: Mapping[str, Lengthened],
    ) -> None:
        self.base, self.replicas, self.scales = base, replicas, scales
        self.whole: Blocks = dict(base)
        self._scratch: Blocks = {}
        self.classes = {block: alike({name: replicas[name][block] for name in who}) for block, who in voters.items()}
        for block in voters:
            self._fill(block)

    def terms(self, node: str) -> list[tuple[str, str]]:
        """Returns the terms of a node, one for each block that it contributes to; equal replicas have one term."""
        return [
            (members[0], block) for block, classes in self.classes.items() for members in classes if node in members
        ]

    def heads(self, block: str) -> list[str]:
        """Returns the nodes whose replicas of a block are in the mean, one of each class of equal ones."""
        return [members[0] for members in self.classes[block]]

    def remove(self, terms: Terms) -> None:
        """Removes terms from the mean permanently."""
        for node, block in terms:
            self.classes[block] = [members for members in self.classes[block] if node not in members]
            self._fill(block)

    def without(self, terms: Terms) -> Blocks:
        """Returns the blocks without some terms. The result is valid until the next call."""
        blocks = dict(self.whole)
        gone: dict[str, set[str]] = {}
        for node, block in terms:
            gone.setdefault(block, set()).update(members[0] for members in self.classes[block] if node in members)
        for block, nodes in gone.items():
            count = len(self.heads(block))
            if block not in self._scratch:
                self._scratch[block] = empty(self.base[block].numel())
            memory = self._scratch[block]
            for node in sorted(nodes):
                whole = blocks[block]
                for place, multipliers in _ranges(self.scales.get(block, ())):
                    share = multipliers.get(node, 1.0) / count
                    for where, (values,) in Chunks([self.replicas[node][block]], place):
                        torch.sub(whole[where], torch.from_numpy(values), alpha=share, out=memory[where])
                blocks[block] = memory
        return blocks

    def _fill(self, block: str) -> None:
        names = self.heads(block)
        if not names:
            self.whole[block] = self.base[block]
            return
        memory = self.whole[block] if self.whole[block] is not self.base[block] else empty(self.base[block].numel())
        replicas = {name: self.replicas[name][block] for name in names}
        witnessed_mean(replicas, self.scales.get(block, ()), memory)
        self.whole[block] = memory.add_(self.base[block])


def _ranges(scales: Lengthened) -> Iterator[tuple[slice, Mapping[str, float]]]:
    """Yields the ranges of a block, and node -> multiplier of its replica there."""
    if not scales:
        yield slice(None), {}
    for part, multipliers in scales:
        for where in part:
            yield where, multipliers
