"""One vote: the replicas of one block become one update and one verdict.

Pure functions over flat float32 updates. Each rule has a file of its own: `majority_rule`, `median_rule`, `mean_rule`.
All sums run in the order of the nodes' names, never of arrival. `kernels` holds the arithmetic.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from torch import Tensor

from strategies.voting.block_parts import Part, whole
from strategies.voting.kernels import begin_of, empty, identical, mean, norm
from trfmoe_core.registry import Registry
from trfmoe_core.wire import Replica

Outcome = Literal["unanimous", "majority", "median", "mean", "unverified", "kept"]

UNVERIFIED_STEP = 1 / 3
"""Share of its update that a lone replica may apply."""

LONGEST = 1.5
"""Where nobody is outvoted, a part of a replica counts with at most so many median norms. Few honest ones exceed it."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """When two replicas agree: cosine above `cosine`, norms within `norm_ratio` of each other, no outlier.

    The closeness of a replica is the smallest cosine to the peers that it needs for a majority. A replica is an
    outlier if its closeness is more than `margin` below the largest one. A margin of 2 or more switches this off.

    `pooled_cosine` is the threshold of `pooled_direction.opposed`; None: nodes are not judged over all blocks together.
    """

    cosine: float = -0.1
    norm_ratio: float = 3.0
    margin: float = 2.0
    pooled_cosine: float | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the vote decided about one block, and about whom. Names are sorted.

    Attributes:
        outcome: How the update came about, for people and reports.
        accepted: Nodes whose replicas count.
        outvoted: Nodes whose replicas arrived and do not count.
        missing: Nodes that sent nothing.
        invalid: Nodes whose reply was dropped.
        alone: The node that stood alone against all others; the rule decides whether there is one.
    """

    outcome: Outcome
    accepted: tuple[str, ...] = ()
    outvoted: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    invalid: tuple[str, ...] = ()
    alone: str | None = None

    @property
    def is_kept(self) -> bool:
        """True if the block stays as it was."""
        return self.outcome == "kept"

    @property
    def is_unverified(self) -> bool:
        """True if one replica alone moved the block."""
        return self.outcome == "unverified"

    def refusing(self, names: Sequence[str]) -> "Verdict":
        """Returns the verdict with further nodes outvoted, whose replicas the vote was not given."""
        if not names:
            return self
        outvoted = tuple(sorted({*self.outvoted, *names}))
        outcome = "majority" if self.outcome == "unanimous" else self.outcome
        return replace(self, outcome=outcome, outvoted=outvoted, alone=outvoted[0] if len(outvoted) == 1 else None)

    def absent(self, *, missing: Sequence[str], invalid: Sequence[str]) -> "Verdict":
        """Returns the verdict with the nodes that sent no usable replica."""
        return replace(self, missing=tuple(sorted(missing)), invalid=tuple(sorted(invalid)))


Decision = tuple[Tensor | None, Verdict]
"""The voted update (None: keep the block) and the verdict."""


@dataclass(frozen=True, kw_only=True)
class BlockVote:
    """What a rule decides on: the replicas of one block. Replicas that are equal to the bit count once, as one class.

    Attributes:
        classes: Names of the nodes, those with equal replicas together.
        updates: One flat replica of each class, of float32, bfloat16, int8 or int4.
        agreement: When two replicas agree.
        result: Float32 memory of a replica's length, in which a rule returns its update.
        norm_cap: Largest norm of a lone replica; a longer one is shortened. None: none is known yet.
        may_be_unverified: True if a lone replica may count.
        known_norms: Norms of `updates`, if they are known already.
        parts: The parts of the block, each of which is shortened to its own median norm.
    """

    classes: list[list[str]]
    updates: list[Replica]
    agreement: Agreement
    result: Tensor
    norm_cap: float | None
    may_be_unverified: bool
    known_norms: list[float] | None
    parts: Sequence[Part]

    @property
    def names(self) -> list[str]:
        """The nodes whose replicas arrived, sorted."""
        return sorted(name for members in self.classes for name in members)

    @cached_property
    def norms(self) -> list[float]:
        """Euclidean norms of `updates`."""
        return self.known_norms or [norm(update) for update in self.updates]

    def lone(self) -> Decision:
        """Decides on a single replica: a third of a step, no longer than the last verified one; else the block stays.

        Before any verified step, no norm tells an honest update from a harmful one, so the block stays.
        """
        if not self.may_be_unverified or self.norm_cap is None:
            return None, Verdict(outcome="kept")
        size = self.norms[0]
        scale = 1.0 if size <= self.norm_cap else self.norm_cap / size
        mean(self.updates, [UNVERIFIED_STEP * scale], self.result)
        return self.result, Verdict(outcome="unverified", accepted=tuple(self.names))

    def verdict(self, outcome: Outcome, counted: Sequence[int]) -> Verdict:
        """Returns the verdict when the classes with these numbers count, and the others do not."""
        accepted = sorted(name for number in counted for name in self.classes[number])
        outvoted = sorted(
            name for number, members in enumerate(self.classes) if number not in counted for name in members
        )
        return Verdict(outcome=outcome, accepted=tuple(accepted), outvoted=tuple(outvoted))


Rule = Callable[[BlockVote], Decision]
"""A rule of a vote. It gets at least one replica."""

RULES: Registry[Rule] = Registry("vote", "strategies.voting")
"""The rules by the name that a recipe gives (`vote`, `vote_trunk`); each registers itself in a file of this folder."""


def vote(
    rule: str,
    replicas: Mapping[str, Replica],
    agreement: Agreement,
    *,
    norm_cap: float | None = None,
    may_be_unverified: bool = True,
    norms: Mapping[str, float] | None = None,
    result: Tensor | None = None,
    parts: Sequence[Part] | None = None,
) -> Decision:
    """Returns the voted update (None: keep the block), float32, and the verdict.

    Args:
        rule: Name of the rule by which replicas become one update.
        replicas: Node name -> update, all finite, flat float32, bfloat16, int8 or int4, of one length.
        agreement: When two replicas agree.
        norm_cap: Largest norm that a lone replica's update may have before its step is shortened; None: none is known
            yet, and a lone replica leaves the block as it is.
        may_be_unverified: Whether a lone replica may be accepted; False when it was the round before.
        norms: Node name -> norm of its replica by `norm`, for whoever has them already.
        result: Float32 memory for the update, of the replicas' length; new when absent. Overwritten in any case.
        parts: The block's parts, which together are all of its values; only one when absent.

    Raises:
        ConfigError: there is no such rule.
    """
    decide = RULES.find(rule)
    if not replicas:
        return None, Verdict(outcome="kept")
    classes = alike(replicas)
    heads = [members[0] for members in classes]
    updates = [replicas[head] for head in heads]
    return decide(
        BlockVote(
            classes=classes,
            updates=updates,
            agreement=agreement,
            result=empty(updates[0].numel()) if result is None else result,
            norm_cap=norm_cap,
            may_be_unverified=may_be_unverified,
            known_norms=None if norms is None else [norms[head] for head in heads],
            parts=parts or whole(updates[0].numel()),
        )
    )


def alike(replicas: Mapping[str, Replica]) -> list[list[str]]:
    """Returns the nodes in classes whose replicas of one block are equal to the bit: a class counts once.

    Classes and nodes are in the order of the nodes' names; the first node of a class stands for it.
    """
    classes: list[list[str]] = []
    beginning: dict[bytes, list[list[str]]] = {}  # only those that begin alike are compared
    for name in sorted(replicas):
        similar = beginning.setdefault(begin_of(replicas[name]), [])
        for members in similar:
            if identical(replicas[members[0]], replicas[name]):
                members.append(name)
                break
        else:
            classes.append([name])
            similar.append(classes[-1])
    return classes


def middle(values: Sequence[float]) -> float:
    """Returns the median of one value or more."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else 0.5 * (ordered[half - 1] + ordered[half])


def shortening(norms: Sequence[float], longest: float = 1.0) -> list[float]:
    """Returns the factors that shorten updates to `longest` median norms; 1 for those that are not longer."""
    bound = longest * middle(norms)
    return [1.0 if size <= bound else bound / size for size in norms]


def within_norm_ratio(block: BlockVote) -> list[int]:
    """Returns the numbers of the classes whose norm is at most `norm_ratio` times the median norm."""
    largest = block.agreement.norm_ratio * middle(block.norms)
    return [number for number, size in enumerate(block.norms) if size <= largest]
