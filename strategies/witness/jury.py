"""Judges the nodes of a round by the harm that their updates do on a text that the coordinator trusts.

Where nodes' data differ, direction cannot tell a liar from an honest stranger: near a stationary point honest updates
sum to about zero, so their cosines are negative too. A node is therefore judged by what leaving its term out of the
mean does to the loss on the witness text (in the spirit of Zeno, arXiv 1805.10032, with leave-one-out terms in the
place of whole updates). Pure functions of the replicas and of a loss; no model and no network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, sqrt

from strategies.voting.block_parts import Lengthened, Part, whole
from strategies.voting.kernels import norm, survey
from strategies.voting.vote import LONGEST
from strategies.witness.candidates import CandidateModels, Replicas
from strategies.witness.hearing import Hearing
from strategies.witness.loss_increase import Harm, Loss, Losses, mean, measure
from trfmoe_core.blocks import TRUNK, Blocks
from trfmoe_core.config import WitnessConfig
from trfmoe_core.wire import Replica

NORM_RATIO = 3.0
"""A node whose updates are this many times larger or smaller than the median node's is convicted without scoring."""

MOST_IN_GROUPS = 6
"""Of so many nodes at most, every group that may be convicted is left out at once."""

LEAST_GAIN = 1e-3
"""Least gain, in nats, that harms are divided by."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What the witness says about the nodes of one round.

    Attributes:
        convicted: Nodes whose updates must not count, in the order of conviction.
        reasons: Why, for each of them.
        scores: Harm relative to the round's gain; positive is harmful. Of the last time that the node was scored; a
            node that was convicted by its numbers alone has none.
        harms: Harm in nats.
        t: Mean of the harm over its standard error, over windows.
        gain: The round's gain on the witness text in nats, as far as anyone can make it.
        scales: Block -> multipliers of the replicas that are too long; a block that is absent has none.
        struck: Expert -> a node whose replica of it alone must not count.
        asked: Expert -> node -> harm in nats and t of the single replicas that were looked at.
    """

    convicted: tuple[str, ...] = ()
    reasons: dict[str, str] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    harms: dict[str, float] = field(default_factory=dict)
    t: dict[str, float] = field(default_factory=dict)
    gain: float = 0.0
    scales: dict[str, Lengthened] = field(default_factory=dict)
    struck: dict[str, str] = field(default_factory=dict)
    asked: dict[str, dict[str, tuple[float, float]]] = field(default_factory=dict)

    def counts(self, node: str, block: str) -> bool:
        """Returns True if a node's replica of a block counts."""
        return node not in self.convicted and self.struck.get(block) != node


@dataclass(frozen=True)
class _Score:
    harm: Harm
    score: float


class Jury:
    """Convicts the nodes that harm the witness text.

    A node is convicted if its harm is above the floor, its score is above `tau_times_n` / N, and the harm is
    significant (`min_t`), all of this also without any other single node: so no node can make another look harmful.

    Only the current round counts: an average over rounds would convict nodes that harm faintly and always, which is how
    an honest node looks whose domain the text lacks. At most half of the nodes are convicted in a round, the worst
    first, and the others are scored again after each. Of at most `MOST_IN_GROUPS` nodes, those without whom the loss is
    least are tried together. It costs N + 2 losses a round, and more only where somebody is suspected.

    Then single replicas of experts that point away from the others' are scored, at most N of them, the strongest first:
    a node may poison one expert and help with all others.

    Args:
        config: The thresholds.
    """

    def __init__(self, config: WitnessConfig) -> None:
        self.config = config

    def judge(
        self,
        base: Blocks,
        replicas: Replicas,
        holders: Mapping[str, Sequence[str]],
        loss: Loss,
        *,
        norms: Mapping[str, Mapping[str, float]] | None = None,
        parts: Mapping[str, Sequence[Part]] | None = None,
    ) -> Judgement:
        """Returns which nodes harm the witness text.

        Needs memory for two sets of blocks beside `base`; replicas are read where they lie, a block at a time.

        Args:
            base: Global blocks that the round started from. Not changed.
            replicas: Node -> block -> update, flat float32, bfloat16, int8 or int4.
            holders: Block -> nodes whose replicas of it count.
            loss: Loss of each witness window for given global blocks.
            norms: Node -> block -> norm of the replica, for whoever has them already.
            parts: Block -> its parts, for blocks that have several.
        """
        names = sorted(replicas)
        norms = norms or {name: {block: norm(update) for block, update in replicas[name].items()} for name in names}
        sizes = {name: _rms(norms[name], replicas[name]) for name in names}
        reasons = _insane(sizes)
        names = [name for name in names if name not in reasons]
        voters = {
            block: [name for name in names if name in who and block in replicas[name]] for block, who in holders.items()
        }
        scales = {
            block: too_long
            for block, who in voters.items()
            if (too_long := _lengthened(block, who, replicas, norms, (parts or {}).get(block, ())))
        }
        scores: dict[str, _Score] = {}
        gain = 0.0
        asked: dict[str, dict[str, Harm]] = {}
        struck: dict[str, str] = {}
        if len(names) > 1:
            outcomes = CandidateModels(base, replicas, voters, scales)
            before = measure(loss, base)
            most = len(names) // 2
            while True:
                hearing = Hearing(outcomes, loss)
                found, gain = self._score(names, hearing, before)
                scores |= found
                culprits = self._culprits(found, hearing, gain, most)
                if not culprits:
                    break
                most -= len(culprits)
                for name in culprits:
                    reasons[name] = self._reason(found[name], gain, len(found))
                    outcomes.remove(outcomes.terms(name))
                    copies = [other for other in names if other not in reasons and not outcomes.terms(other)]
                    reasons |= dict.fromkeys(copies, f"its update is equal to that of {name}")
                names = [name for name in names if name not in reasons]
                if not names:
                    break
            for name, block in _odd(outcomes, norms)[: len(replicas)]:
                asked.setdefault(block, {})[name] = hearing.harm({(name, block)})
            struck = self._struck(asked, hearing, names)
        return Judgement(
            convicted=tuple(reasons),
            reasons=reasons,
            scores={name: score.score for name, score in scores.items()},
            harms={name: score.harm.nats for name, score in scores.items()},
            t={name: score.harm.t for name, score in scores.items()},
            gain=gain,
            scales=scales,
            struck=struck,
            asked={block: {name: (h.nats, h.t) for name, h in who.items()} for block, who in asked.items()},
        )

    def _score(self, names: Sequence[str], hearing: Hearing, before: Losses) -> tuple[dict[str, _Score], float]:
        harms = {name: hearing.harm(hearing.terms_of(name)) for name in names}
        best = mean(before) - mean(hearing.after)
        gain = max([LEAST_GAIN, best, *(best + found.nats for found in harms.values())])
        return {name: _Score(found, found.nats / gain) for name, found in harms.items()}, gain

    def _culprits(self, scores: Mapping[str, _Score], hearing: Hearing, gain: float, most: int) -> list[str]:
        """Returns the nodes to convict now: of few nodes those who harm together, else the worst one."""
        if most == 0 or len(scores) == 1:
            return []
        # A very harmful update makes honest ones look harmful too, only less, so the worst is removed first.
        order = sorted(scores, key=lambda name: (scores[name].harm.nats, name), reverse=True)
        guilty = [name for name in order if self._is_guilty(scores[name].harm, gain, len(scores))]
        if not guilty:
            return []
        if most > 1 and len(scores) <= MOST_IN_GROUPS:
            group = hearing.worst_group(sorted(scores), most)
            found = [name for name in order if name in group and self._stands(name, group, scores, hearing, gain)]
            if found:
                return found
        return next(([name] for name in guilty if self._stands(name, (name,), scores, hearing, gain)), [])

    def _stands(
        self, name: str, group: Sequence[str], scores: Mapping[str, _Score], hearing: Hearing, gain: float
    ) -> bool:
        """Returns True if a node harms the mean without the rest of its group, whichever other node is left out too.

        So no single node can make another one look harmful: without it there would be no harm.
        """
        accused = hearing.terms_of(name)
        rest = [other for other in group if other != name]
        contexts = [rest, *([*rest, other] for other in scores if other not in group)]
        return all(
            self._is_guilty(hearing.harm(accused, hearing.terms_of(*gone)), gain, len(scores)) for gone in contexts
        )

    def _is_guilty(self, found: Harm, gain: float, count: int) -> bool:
        config = self.config
        return found.nats > max(config.floor_nats, gain * config.tau_times_n / count) and found.t > config.min_t

    def _struck(
        self, asked: Mapping[str, Mapping[str, Harm]], hearing: Hearing, names: Sequence[str]
    ) -> dict[str, str]:
        """Returns the worst replica of each expert. Next to great harm, honest replicas look harmful too, only less.

        It must be harmful also without any other single node.
        """

        def is_harmful(found: Harm) -> bool:
            return found.nats > self.config.expert_floor_nats and found.t > self.config.min_t

        struck = {}
        for block, who in asked.items():
            for name in sorted(who, key=lambda name: (who[name].nats, name), reverse=True):
                others = [hearing.terms_of(other) for other in names if other != name]
                if is_harmful(who[name]) and all(is_harmful(hearing.harm({(name, block)}, gone)) for gone in others):
                    struck[block] = name
                    break
        return struck

    def _reason(self, score: _Score, gain: float, count: int) -> str:
        return (
            f"harms the witness text by {score.harm.nats:.4f} nats in a round that can gain {gain:.4f}: "
            f"score {score.score:.2f} against {self.config.tau_times_n / count:.3f}, t {score.harm.t:.1f}"
        )


def _odd(outcomes: CandidateModels, norms: Mapping[str, Mapping[str, float]]) -> list[tuple[str, str]]:
    """Returns the replicas of experts that point away from the others of their block, the hardest pushes first."""
    found = []
    for block in outcomes.base:
        names = outcomes.heads(block) if block != TRUNK and block in outcomes.classes else []
        if len(names) < 3:
            continue
        sizes = [norms[name][block] for name in names]
        updates = [outcomes.replicas[name][block] for name in names]
        dots = survey(updates, [1.0] * len(names))[1]
        [(_, multipliers)] = outcomes.scales.get(block, ()) or [((), {})]  # an expert is one part
        scales = [multipliers.get(name, 1.0) for name in names]
        middle = max(_middle(sizes), 1e-30)
        for i, name in enumerate(names):
            push = -sum(scales[i] * scales[j] * dots[min(i, j)][max(i, j)] for j in range(len(names)) if j != i)
            if push > 0:
                found.append((push / middle / middle, name, block))
    return [(name, block) for _, name, block in sorted(found, key=lambda entry: (-entry[0], *entry[1:]))]


def _rms(norms: Mapping[str, float], updates: Mapping[str, Replica]) -> float:
    numel = sum(update.numel() for update in updates.values())
    return sqrt(sum(size * size for size in norms.values()) / max(1, numel))


def _insane(sizes: Mapping[str, float]) -> dict[str, str]:
    """Returns the nodes whose updates are not finite, or far from the median in size, and why."""
    reasons = {name: "the update is not finite" for name, size in sizes.items() if not isfinite(size)}
    finite = {name: size for name, size in sizes.items() if name not in reasons}
    middle = _middle(list(finite.values())) if finite else 0.0
    # Of two nodes, nobody can say which one is the outlier.
    if len(finite) < 3 or middle == 0.0:
        return reasons
    for name, size in finite.items():
        if not middle / NORM_RATIO <= size <= middle * NORM_RATIO:
            reasons[name] = f"the update is {size / middle:.3g} times as large as the median node's"
    return reasons


def _lengthened(
    block: str,
    names: Sequence[str],
    replicas: Replicas,
    norms: Mapping[str, Mapping[str, float]],
    parts: Sequence[Part],
) -> Lengthened:
    """Returns by what replicas of a block are multiplied that are too long; empty if none is."""
    if not names:
        return ()
    found: list[tuple[Part, dict[str, float]]] = []
    for part in parts or whole(replicas[names[0]][block].numel()):
        sizes = {name: norm(replicas[name][block], part) if parts else norms[name][block] for name in names}
        bound = LONGEST * _middle(list(sizes.values()))
        found.append((part, {name: bound / size for name, size in sizes.items() if size > bound}))
    return found if any(multipliers for _, multipliers in found) else ()


def _middle(values: Sequence[float]) -> float:
    """The lower median, so that of two replicas the longer one is cut."""
    return sorted(values)[(len(values) - 1) // 2]
