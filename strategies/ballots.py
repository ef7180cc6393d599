"""Collects the replicas of a round and decides every block once."""

from collections.abc import Callable, Iterator, Mapping

from torch import Tensor

from strategies.placement import Placement
from strategies.voting import Agreement, Rule, Verdict, norm, vote
from trfmoe_core.blocks import TRUNK, Blocks
from trfmoe_core.errors import WireError

WEIGHT_CAP = 3.0
"""A node's token count weighs at most this many times the median in a mean of the trunk."""


class Ballots:
    """The open votes of one round, one a block."""

    def __init__(self, placement: Placement, rule: Rule, agreement: Agreement) -> None:
        self.placement = placement
        self.rule = rule
        self.agreement = agreement
        self._replicas: dict[str, Blocks] = {}
        self._tokens: dict[str, int] = {}
        self._invalid: set[str] = set()

    def add(self, node: str, updates: Blocks, tokens: int) -> None:
        """Takes a node's checked updates and its token count.

        Raises:
            WireError: when the node has voted already, or an update is not finite; nothing of it counts then.
        """
        if node in self._replicas or node in self._invalid:
            raise WireError("a second reply in one round")
        for name, update in updates.items():
            size = norm(update)
            if not size < float("inf"):
                raise WireError(f"block {name!r}: the update is not finite")
        self._replicas[node] = updates
        self._tokens[node] = tokens

    def reject(self, node: str) -> None:
        """Records that a node's reply was dropped."""
        if node not in self._replicas:
            self._invalid.add(node)

    @property
    def voters(self) -> list[str]:
        """Nodes whose updates count, sorted."""
        return sorted(self._replicas)

    def decide(
        self, norm_cap: Callable[[str], float | None], was_unverified: Mapping[str, bool]
    ) -> Iterator[tuple[str, Tensor | None, Verdict]]:
        """Yields block, voted update (None: keep) and verdict for every block of the placement.

        Args:
            norm_cap: Block -> largest norm that a lone replica may have; None: no bound is known yet.
            was_unverified: Blocks whose last vote had a lone replica.
        """
        weights = self._weights()
        for block, holders in self.placement.holders.items():
            replicas = {name: self._replicas[name][block] for name in holders if block in self._replicas.get(name, {})}
            update, verdict = vote(
                self.rule,
                replicas,
                self.agreement,
                weights=weights if block == TRUNK else None,
                norm_cap=norm_cap(block),
                may_be_unverified=not was_unverified.get(block, False),
            )
            absent = [name for name in holders if name not in replicas]
            invalid = [name for name in absent if name in self._invalid]
            yield block, update, verdict.absent(missing=[n for n in absent if n not in invalid], invalid=invalid)

    def _weights(self) -> dict[str, float]:
        counts = sorted(self._tokens.values())
        if not counts:
            return {}
        cap = WEIGHT_CAP * counts[(len(counts) - 1) // 2]
        return {name: min(count, cap) for name, count in self._tokens.items()}
