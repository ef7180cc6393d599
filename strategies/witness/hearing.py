"""Losses of a round's candidate models: the mean without some terms. Each is measured once."""

from collections.abc import Sequence, Set
from itertools import combinations

from strategies.witness.candidates import CandidateModels
from strategies.witness.loss_increase import Harm, Loss, Losses, harm, mean, measure

Term = tuple[str, str]
"""A node and a block: the node's replica of it, or that of the first node with an equal one."""


class Hearing:
    """What removing terms does to the loss on the witness text, as long as `outcomes` stays as it is.

    Args:
        outcomes: The mean.
        loss: Loss of each witness window for given global blocks.
    """

    def __init__(self, outcomes: CandidateModels, loss: Loss) -> None:
        self._outcomes, self._loss = outcomes, loss
        self.after = measure(loss, outcomes.whole)
        self._measured: dict[frozenset[Term], Losses] = {frozenset(): self.after}

    def terms_of(self, *nodes: str) -> frozenset[Term]:
        """Returns the terms of nodes."""
        return frozenset(term for node in nodes for term in self._outcomes.terms(node))

    def losses(self, gone: Set[Term]) -> Losses:
        """Returns the losses without some terms."""
        key = frozenset(gone)
        if key not in self._measured:
            self._measured[key] = measure(self._loss, self._outcomes.without(key))
        return self._measured[key]

    def harm(self, accused: Set[Term], gone: Set[Term] = frozenset()) -> Harm:
        """Returns the harm of some terms in the mean without others. A term that is in both sets is accused."""
        gone = gone - accused
        return harm(self.losses(gone), self.losses(gone | accused))

    def worst_group(self, nodes: Sequence[str], most: int) -> tuple[str, ...]:
        """Returns the nodes, `most` at most, without which the loss is least; the fewest if groups are equal."""
        groups = [group for size in range(1, most + 1) for group in combinations(nodes, size)]
        return min(groups, key=lambda group: mean(self.losses(self.terms_of(*group))))
