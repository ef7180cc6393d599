"""Votes on the momentum that nodes share, in the blocks in which their updates are voted on.

A momentum counts only if its node's update of the block was accepted, and no node's momentum is believed for that: a
node that sends an honest update may send a false momentum.
"""

from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor

from strategies.placement.placement import Placement
from strategies.voting.kernels import norm
from strategies.voting.pooled_direction import opposed, pooled_cosines
from strategies.voting.vote import Agreement, Verdict, middle, vote
from trfmoe_core.blocks import TRUNK, BlockLayout, Blocks
from trfmoe_core.config import Recipe
from trfmoe_core.errors import WireError
from trfmoe_core.quantize import LEVELS
from trfmoe_core.training.shared_momentum import PREFIX
from trfmoe_core.wire import Replica

ARITHMETIC = 1e-2
"""Relative error of a momentum and its norm in float32 or bfloat16, with a reserve."""


class MomentumVote:
    """The momentum of one run's rounds.

    Args:
        recipe: The run.
        layout: By `with_momentum`.
        agreement: When two replicas agree.
        voted: What an earlier round's vote gave, to go on from there.
    """

    def __init__(self, recipe: Recipe, layout: BlockLayout, agreement: Agreement, voted: Blocks | None = None) -> None:
        self._recipe, self._layout, self._agreement = recipe, layout, agreement
        self.voted: Blocks = dict(voted or {})
        """Block -> the momentum that the next round's request brings."""
        self._replicas: dict[str, dict[str, Replica]] = {}

    def check(self, momentum: Mapping[str, Replica]) -> None:
        """Makes sure that training by the recipe can make a node's momentum.

        A momentum is a weighted mean of gradients, each shortened to `training.clip_norm`, so it is no longer than
        that. It starts as one that was voted, which is no longer either, and is rounded once on each way.

        Raises:
            WireError: it is not finite, or too long.
        """
        for block, values in momentum.items():
            size, limit = norm(values), self._longest(block)
            if not size <= limit:
                raise WireError(
                    f"the momentum of block {block!r} has the norm {size:.3g}; no training by the recipe makes one "
                    f"above {limit:.3g}"
                )

    def add(self, node: str, momentum: dict[str, Replica]) -> None:
        """Takes a node's checked momentum."""
        self._replicas[node] = momentum

    def decide(self, placement: Placement, verdicts: Mapping[str, Verdict]) -> list[str]:
        """Votes on the momentum that has arrived since the last call, and keeps the result in `voted`.

        Args:
            placement: Who holds what.
            verdicts: Block -> what the vote on the updates decided.

        Returns:
            One sentence for every node whose momentum did not count in most of its blocks.
        """
        replicas, self._replicas, self.voted = self._replicas, {}, {}
        if not replicas:
            return []
        plain_mean = "mean" in (self._recipe.vote, self._recipe.rule_of_trunk)
        away = [] if plain_mean else opposed(pooled_cosines(replicas, placement.holders), 0.0)
        outvoted = Counter[str]()
        for block, verdict in verdicts.items():
            sent = {name: replicas[name][block] for name in verdict.accepted if block in replicas.get(name, {})}
            believed = {name: values for name, values in sent.items() if name not in away}
            if PREFIX + block not in self._layout.specs or not believed:
                continue
            rule = self._recipe.rule_of_trunk if block == TRUNK else self._recipe.vote
            result, found = vote(rule, believed, self._agreement, may_be_unverified=False)
            outvoted.update(name for name in sent if name in away or name in found.outvoted)
            if result is not None:
                self.voted[block] = self._shortened(result, [norm(values) for values in believed.values()])
        return [
            f"the momentum of {name} is outvoted in {outvoted[name]} of the {len(replicas[name])} blocks that it holds"
            for name in sorted(outvoted)
            if 2 * outvoted[name] > len(replicas[name])
        ]

    def _shortened(self, voted: Tensor, norms: list[float]) -> Tensor:
        """Returns a momentum that is no longer than the middle one of those that were voted on."""
        most, size = min(middle(norms), self._recipe.training.clip_norm), float(torch.linalg.vector_norm(voted))
        return voted if size <= most else voted.mul_(most / size)

    def _longest(self, block: str) -> float:
        transport, spec = self._recipe.transport, self._layout.specs[PREFIX + block]
        longest = self._recipe.training.clip_norm * (1 + ARITHMETIC)
        for dtype in (transport.updates, transport.momentum):
            if dtype in LEVELS:
                # Every value of a row errs by at most half a step of its largest value.
                longest *= 1 + max(slot.shape[-1] for slot in spec.slots) ** 0.5 / (2 * LEVELS[dtype])
        return longest
