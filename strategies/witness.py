"""Judges the nodes of a round by the harm that their updates do on a text that the coordinator trusts.

Where nodes' data differ, direction cannot tell a liar from an honest stranger: near a stationary point honest updates
sum to about zero, so their cosines are negative too. A node is therefore judged by what leaving its term out of the
mean does to the loss on the witness text (in the spirit of Zeno, arXiv 1805.10032, with leave-one-out terms in the
place of whole updates). Pure functions of the replicas and of a loss; no model and no network.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, sqrt
from typing import Any

from torch import Tensor

from strategies.kernels import norm
from strategies.outcomes import Outcomes, Replicas, witnessed_mean
from trfmoe_core.blocks import Blocks
from trfmoe_core.config import WitnessConfig
from trfmoe_core.wire import Replica

__all__ = ["Judgement", "Jury", "Loss", "witnessed_mean"]

Loss = Callable[[Blocks], Tensor]
"""Global blocks -> loss of each witness window in nats a token, float64. The windows are the same all round."""

NORM_RATIO = 3.0
"""A node whose updates are this many times larger or smaller than the median node's is not asked for its harm."""

LEAST_GAIN = 1e-3
"""Nats; the gain that harms are relative to is never taken as less."""

WORST_LOSS = 100.0
"""Nats; stands for a window's loss that is above it or not a number."""

WORST_T = 1e6


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What the witness says about the nodes of one round.

    Attributes:
        convicted: Nodes whose updates must not count, in the order of conviction.
        reasons: Why, for each of them.
        scores: Harm relative to the round's gain; positive is harmful. Of the last time that the node was scored; a
            node that was convicted by its numbers alone has none.
        averages: Moving averages of the scores.
        harms: Harm in nats.
        t: Mean of the harm over its standard error, over windows.
        gain: The round's gain on the witness text in nats, as far as anyone can make it.
        scales: Block -> node -> multiplier below 1 for replicas that are too long; others have none.
    """

    convicted: tuple[str, ...] = ()
    reasons: dict[str, str] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    averages: dict[str, float] = field(default_factory=dict)
    harms: dict[str, float] = field(default_factory=dict)
    t: dict[str, float] = field(default_factory=dict)
    gain: float = 0.0
    scales: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Score:
    harm: float
    t: float
    score: float
    average: float


class Jury:
    """Convicts the nodes that harm the witness text.

    A node is convicted when its harm of this round is above the floor, and either its score is above `tau_times_n` / N
    beyond doubt (`sure_t`), or the moving average of its scores is, and the harm significant (`min_t`): what is faint
    must be a habit, and what is plain is not excused by a good past. At most max(1, (N - 1) // 4) nodes a round, the
    worst first, and the rest is scored again after each. Costs N + 2 losses a round, and N + 1 more for each further
    conviction. A node that poisons a single expert and helps with the rest is not convicted; the bound on the length of
    a replica is what limits it.

    Args:
        config: The thresholds.
        state: What `state` of an earlier jury returned, to go on from there.
    """

    def __init__(self, config: WitnessConfig, state: Mapping[str, Any] | None = None) -> None:
        self.config = config
        self._averages: dict[str, float] = dict((state or {}).get("averages", {}))

    def state(self) -> dict[str, Any]:
        """Returns all that later rounds depend on, ready for JSON."""
        return {"averages": dict(sorted(self._averages.items()))}

    def judge(
        self,
        base: Blocks,
        replicas: Replicas,
        holders: Mapping[str, Sequence[str]],
        loss: Loss,
        *,
        weights: Mapping[str, float] | None = None,
        norms: Mapping[str, Mapping[str, float]] | None = None,
    ) -> Judgement:
        """Returns who harms, and updates the moving averages.

        Needs memory for two sets of blocks beside `base`; replicas are read where they lie, a block at a time.

        Args:
            base: Global blocks that the round started from. Not changed.
            replicas: Node -> block -> update, flat float32, bfloat16 or int8.
            holders: Block -> nodes whose replicas of it count.
            loss: Loss of each witness window for given global blocks.
            weights: Node -> weight in the trunk's mean; equal when absent.
            norms: Node -> block -> norm of the replica, for whoever has them already.
        """
        names = sorted(replicas)
        norms = norms or {name: {block: norm(update) for block, update in replicas[name].items()} for name in names}
        sizes = {name: _rms(norms[name], replicas[name]) for name in names}
        reasons = _insane(sizes)
        names = [name for name in names if name not in reasons]
        voters = {
            block: [name for name in names if name in who and block in replicas[name]] for block, who in holders.items()
        }
        scales = _clip({block: {name: norms[name][block] for name in who} for block, who in voters.items()})
        scores: dict[str, _Score] = {}
        gain = 0.0
        if len(names) > 1:
            outcomes = Outcomes(base, replicas, voters, scales, weights)
            before = _bounded(loss(base))
            for _ in range(max(1, (len(names) - 1) // 4)):
                found, gain = self._score(names, outcomes, before, loss)
                scores |= found
                worst = self._worst(found)
                if worst is None:
                    break
                reasons[worst] = self._reason(found[worst], gain, len(names))
                names.remove(worst)
                outcomes.remove(worst)
        self._averages |= {name: score.average for name, score in scores.items()}
        return Judgement(
            convicted=tuple(reasons),
            reasons=reasons,
            scores={name: score.score for name, score in scores.items()},
            averages={name: score.average for name, score in scores.items()},
            harms={name: score.harm for name, score in scores.items()},
            t={name: score.t for name, score in scores.items()},
            gain=gain,
            scales=scales,
        )

    def _score(
        self, names: Sequence[str], outcomes: Outcomes, before: Tensor, loss: Loss
    ) -> tuple[dict[str, _Score], float]:
        after = _bounded(loss(outcomes.whole))
        harms = {name: after - _bounded(loss(outcomes.without(name))) for name in names}
        best = float((before - after).mean())
        best = max([best, *(best + float(harm.mean()) for harm in harms.values())])
        gain = max(LEAST_GAIN, best)
        scores = {}
        for name, harm in harms.items():
            score = float(harm.mean()) / gain
            average = bounded = max(-1.0, min(1.0, score))
            if name in self._averages:
                average = self.config.ema * self._averages[name] + (1 - self.config.ema) * bounded
            scores[name] = _Score(float(harm.mean()), _t(harm), score, average)
        return scores, gain

    def _worst(self, scores: Mapping[str, _Score]) -> str | None:
        tau = self.config.tau_times_n / len(scores)
        config = self.config
        guilty = [
            name
            for name, found in scores.items()
            if found.harm > config.floor_nats
            and ((found.score > tau and found.t > config.sure_t) or (found.average > tau and found.t > config.min_t))
        ]
        # By this round alone: beside a great harm, honest terms look harmful too, but less so.
        return max(guilty, key=lambda name: (scores[name].harm, name), default=None)

    def _reason(self, score: _Score, gain: float, count: int) -> str:
        return (
            f"harms the witness text by {score.harm:.4f} nats in a round that can gain {gain:.4f}: "
            f"score {score.score:.2f} and average {score.average:.2f} against {self.config.tau_times_n / count:.3f}, "
            f"t {score.t:.1f}"
        )


def _rms(norms: Mapping[str, float], updates: Mapping[str, Replica]) -> float:
    numel = sum(update.numel() for update in updates.values())
    return sqrt(sum(size * size for size in norms.values()) / max(1, numel))


def _insane(sizes: Mapping[str, float]) -> dict[str, str]:
    """Returns the nodes whose updates are not finite, or far from the median in size, and why."""
    reasons = {name: "the update is not finite" for name, size in sizes.items() if not isfinite(size)}
    finite = {name: size for name, size in sizes.items() if name not in reasons}
    middle = _middle(list(finite.values())) if finite else 0.0
    # Of two, nobody can say which one is out of line.
    if len(finite) < 3 or middle == 0.0:
        return reasons
    for name, size in finite.items():
        if not middle / NORM_RATIO <= size <= middle * NORM_RATIO:
            reasons[name] = f"the update is {size / middle:.3g} times as large as the median node's"
    return reasons


def _clip(norms: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    scales = {}
    for block, sizes in norms.items():
        bound = NORM_RATIO * _middle(list(sizes.values())) if sizes else 0.0
        long = {name: bound / size for name, size in sizes.items() if size > bound}
        if long:
            scales[block] = long
    return scales


def _middle(values: Sequence[float]) -> float:
    """The lower median: of two replicas, the longer one is the one that is cut."""
    return sorted(values)[(len(values) - 1) // 2]


def _bounded(losses: Tensor) -> Tensor:
    return losses.double().nan_to_num(nan=WORST_LOSS, posinf=WORST_LOSS).clamp(max=WORST_LOSS)


def _t(differences: Tensor) -> float:
    count = differences.numel()
    if count < 2:
        return 0.0
    middle, error = float(differences.mean()), float(differences.std()) / sqrt(count)
    if error == 0.0:
        return WORST_T if middle > 0 else 0.0
    return max(-WORST_T, min(WORST_T, middle / error))
