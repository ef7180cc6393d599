"""How far one optimizer step can move the weights, whatever the gradients are; docs/voting.md has the proofs."""

import math
from dataclasses import dataclass

from trfmoe_core.config.training import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class LargestStep:
    """The largest possible step of a tensor per unit of the learning rate, without weight decay.

    Attributes:
        value: No single value moves further.
        spectral: No separate matrix of the tensor moves by one with a larger singular value; None: no such limit.
    """

    value: float
    spectral: float | None = None


def adamw_largest_step(config: TrainingConfig, updates: int) -> LargestStep:
    """Returns the largest step of AdamW among its first `updates` updates.

    By Cauchy and Schwarz, for any gradients, the first moment over the root of the second is at most

        c(t) = (1 - b1) / (1 - b1^t) * sqrt((1 - r^t) / (1 - r) * (1 - b2^t) / (1 - b2)),   r = b1^2 / b2,

    with the corrections of both biases. c grows with t. If r < 1, its limit is (1 - b1) / sqrt((1 - b2) (1 - r)).

    Args:
        config: Betas.
        updates: Updates of a tensor at most since its moments were zero.
    """
    b1, b2 = config.beta1, config.beta2
    if b2 == 0.0:  # The second moment is the last gradient alone, which may be far below the first moment.
        return LargestStep(value=math.inf if b1 else 1.0)
    ratio = b1 * b1 / b2
    try:
        squared = _geometric(ratio, updates) * _geometric(b2, updates) / _geometric(b1, updates) ** 2
    except OverflowError:
        squared = math.inf
    return LargestStep(value=math.sqrt(squared))


def _geometric(ratio: float, count: int) -> float:
    """Returns 1 + ratio + ... + ratio^(count - 1)."""
    if ratio == 1.0:
        return float(count)
    return (1.0 - math.pow(ratio, count)) / (1.0 - ratio)
