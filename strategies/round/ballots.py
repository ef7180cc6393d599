"""Collects the replicas of a round and decides every block once."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from strategies.placement.placement import Placement
from strategies.round.disputes import Disputes
from strategies.voting.block_parts import Part, whole
from strategies.voting.kernels import empty, norm
from strategies.voting.pooled_direction import contradicting, opposed, pooled_cosines
from strategies.voting.vote import Agreement, Verdict, alike, vote
from strategies.voting.without import mean_without
from strategies.witness.candidates import witnessed_mean
from strategies.witness.jury import Judgement, Jury
from strategies.witness.loss_increase import Loss
from trfmoe_core.blocks import TRUNK, Blocks
from trfmoe_core.errors import WireError
from trfmoe_core.wire import Replica

ABSURD_RMS = 1e3
"""Largest root mean square of an update. A larger one is dropped."""


class Ballots:
    """The open votes of one round, one a block.

    Args:
        placement: Who holds what; None: nobody holds anything yet.
        rule: Of the experts' votes.
        agreement: When two replicas agree.
        trunk_rule: Of the trunk's vote; `rule` when absent.
        parts: Block -> its parts, for blocks that have several.
        disputes: Chooses between two nodes that contradict each other; None: both count.
        rounds_left: How many rounds follow this one, for the disputes.
    """

    def __init__(
        self,
        placement: Placement | None,
        rule: str,
        agreement: Agreement,
        trunk_rule: str | None = None,
        parts: Mapping[str, Sequence[Part]] | None = None,
        disputes: Disputes | None = None,
        rounds_left: int = 0,
    ) -> None:
        self.placement = placement or Placement(epoch=0, nodes=(), holders={})
        self.rule, self.trunk_rule = rule, trunk_rule or rule
        self.agreement, self.parts = agreement, parts or {}
        self._disputes, self._rounds_left = disputes, rounds_left
        self._replicas: dict[str, dict[str, Replica]] = {}
        self._norms: dict[str, dict[str, float]] = {}
        self._invalid: set[str] = set()
        self._refused: set[str] = set()
        self._settled: tuple[tuple[str, ...], bool] | None = None
        self._judgement: Judgement | None = None
        self.left_out: list[tuple[str, str]] = []
        """Of two nodes that contradict each other, the one that `decide` took and the one that it left out."""

    def admits(self, node: str) -> None:
        """Checks that a node may still vote in this round.

        Raises:
            WireError: It has voted, or its reply was dropped.
        """
        if node in self._replicas or node in self._invalid | self._refused:
            raise WireError("a second reply in one round")

    def add(self, node: str, updates: dict[str, Replica], norms: dict[str, float] | None = None) -> None:
        """Takes a node's checked updates and their norms, if `measured` has given them already.

        All nodes weigh the same: how much one has trained is only its claim.

        Raises:
            WireError: when the node has voted already, or an update is not finite; nothing of it counts then.
        """
        self.admits(node)
        norms = measured(updates) if norms is None else norms
        self._replicas[node] = updates
        self._norms[node] = norms

    def refuse(self, node: str) -> None:
        """Outvotes a node on every block that it holds: no training by the recipe makes what it sent."""
        self._refused.add(node)

    def is_refused(self, node: str) -> bool:
        """Returns True if `refuse` was called for a node."""
        return node in self._refused

    def reject(self, node: str) -> None:
        """Records that a node's reply was dropped."""
        if node not in self._replicas:
            self._invalid.add(node)

    @property
    def voters(self) -> list[str]:
        """Nodes whose updates count, sorted."""
        return sorted(self._replicas)

    def has_quorum(self, quorum: int) -> bool:
        """Returns True if every expert has `quorum` replicas and more than half of the nodes sent the trunk."""
        for block, holders in self.placement.holders.items():
            present = sum(block in self._replicas.get(name, {}) for name in holders)
            if present < (len(holders) // 2 + 1 if block == TRUNK else min(quorum, len(holders))):
                return False
        return True

    def settled(self) -> bool:
        """Returns True if every block can already be decided by the replicas that have arrived."""
        voters = tuple(self.voters)
        if self._settled is None or self._settled[0] != voters:
            self._settled = (voters, self._all_agree())
        return self._settled[1]

    def _all_agree(self) -> bool:
        for block, holders in self.placement.holders.items():
            replicas = {name: self._replicas[name][block] for name in holders if block in self._replicas.get(name, {})}
            if len(replicas) == len(holders):
                continue
            norms = {name: self._norms[name][block] for name in replicas}
            if vote(self._rule(block), replicas, self.agreement, norms=norms, parts=self.parts.get(block))[1].is_kept:
                return False
        return True

    def judge(self, jury: Jury, base: Blocks, loss: Loss) -> Judgement:
        """Lets the witness decide whose replicas count, in the place of their agreement; see `Jury.judge`."""
        self._judgement = jury.judge(
            base, self._replicas, self.placement.holders, loss, norms=self._norms, parts=self.parts
        )
        return self._judgement

    def decide(
        self, norm_cap: Callable[[str], float | None], was_unverified: Mapping[str, bool]
    ) -> Iterator[tuple[str, Tensor | None, Verdict]]:
        """Yields block, voted update (None: keep) and verdict for every block of the placement.

        All updates use the same memory: one is valid until the next is asked for.

        Args:
            norm_cap: Block -> largest norm that a lone replica may have; None: none is known yet, so it does not count.
            was_unverified: Blocks whose last vote had a lone replica.
        """
        away = self._opposed()
        left_out = {name for _, name in self.left_out}
        memory = empty(
            max((update.numel() for updates in self._replicas.values() for update in updates.values()), default=0)
        )
        for block, holders in self.placement.holders.items():
            replicas = {name: self._replicas[name][block] for name in holders if block in self._replicas.get(name, {})}
            result = memory[: next((replica.numel() for replica in replicas.values()), 0)]
            believed = self._believed(block, {n: r for n, r in replicas.items() if n not in away and n not in left_out})
            if self._judgement is not None and believed and believed[0][0] in self._judgement.scores:
                heads = {members[0]: replicas[members[0]] for members in believed}
                update: Tensor | None = witnessed_mean(heads, self._judgement.scales.get(block, ()), result)
                verdict = _witnessed(replicas, believed)
            elif len(believed) > 1 and left_out & replicas.keys():
                heard = {name: replica for name, replica in replicas.items() if name not in away}
                parts = self.parts.get(block) or whole(result.numel())
                update, verdict = mean_without(left_out, heard, parts, result)
            else:
                rest = {name: replicas[name] for members in believed for name in members}
                update, verdict = vote(
                    self._rule(block),
                    rest,
                    self.agreement,
                    norm_cap=norm_cap(block),
                    may_be_unverified=not was_unverified.get(block, False),
                    norms={name: self._norms[name][block] for name in rest},
                    result=result,
                    parts=self.parts.get(block),
                )
                if disbelieved := set(replicas) - set(rest):
                    outvoted = tuple(sorted({*verdict.outvoted, *disbelieved}))
                    verdict = replace(verdict, outvoted=outvoted, alone=None)
            verdict = verdict.refusing([name for name in holders if name in self._refused or name in away])
            absent = [name for name in holders if name not in replicas and name not in self._refused]
            invalid = [name for name in absent if name in self._invalid]
            yield block, update, verdict.absent(missing=[n for n in absent if n not in invalid], invalid=invalid)

    def _believed(self, block: str, replicas: Mapping[str, Replica]) -> list[list[str]]:
        """Returns the nodes whose replicas count, in classes of equal replicas. A copy of a lie counts as the lie."""
        found = self._judgement
        if found is None:
            return [[name] for name in replicas]
        return [members for members in alike(replicas) if all(found.counts(name, block) for name in members)]

    def _opposed(self) -> list[str]:
        """Returns the nodes whose direction, over all blocks, is against the others'; a witness decides instead."""
        threshold = self.agreement.pooled_cosine
        if threshold is None or self._judgement is not None or "mean" in (self.rule, self.trunk_rule):
            return []
        cosines = pooled_cosines(self._replicas, self.placement.holders)
        away = opposed(cosines, threshold)
        if self._disputes is not None:
            pairs = contradicting(cosines, threshold)
            within = {name for pair in pairs for name in pair}
            judges = [name for name in self.voters if name not in within and name not in away]
            left_out = self._disputes.leave_out(pairs, judges, self._rounds_left)
            self.left_out = [(one, two) if two in left_out else (two, one) for one, two in pairs]
        return away

    def _rule(self, block: str) -> str:
        return self.trunk_rule if block == TRUNK else self.rule


def measured(updates: Mapping[str, Replica]) -> dict[str, float]:
    """Returns the norms of a node's updates.

    Raises:
        WireError: an update is not finite, or larger than any training makes it.
    """
    norms = {block: norm(update) for block, update in updates.items()}
    for block, size in norms.items():
        if not size < float("inf"):
            raise WireError(f"block {block!r}: the update is not finite")
        if size > ABSURD_RMS * updates[block].numel() ** 0.5:
            raise WireError(f"block {block!r}: the update's norm is {size:.3g}; no training goes so far in a round")
    return norms


def _witnessed(replicas: Mapping[str, Replica], believed: list[list[str]]) -> Verdict:
    accepted = tuple(sorted(name for members in believed for name in members))
    outvoted = tuple(sorted(set(replicas) - set(accepted)))
    return Verdict(
        outcome="majority" if outvoted else "unanimous",
        accepted=accepted,
        outvoted=outvoted,
        alone=outvoted[0] if len(outvoted) == 1 else None,
    )
