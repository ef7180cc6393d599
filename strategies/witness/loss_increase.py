"""How much some terms of a mean raise the loss on the witness text, and how certain that is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, sqrt
from statistics import fmean

from torch import Tensor

from trfmoe_core.blocks import Blocks

Loss = Callable[[Blocks], Sequence[Tensor]]
"""Global blocks -> loss of each witness window in nats a token, float64, one tensor a source of the text.

The windows are the same all round. Sources weigh the same, however many windows they have.
"""

WORST_LOSS = 100.0
"""Nats. Replaces a window's loss that is larger or not a number."""

WORST_T = 1e6

Losses = Sequence[Tensor]


@dataclass(frozen=True)
class Harm:
    """Mean over the sources in nats, and this mean over its standard error."""

    nats: float
    t: float


def measure(loss: Loss, blocks: Blocks) -> Losses:
    """Returns the losses of blocks, made finite."""
    worst = WORST_LOSS
    return [part.double().nan_to_num(nan=worst, posinf=worst).clamp(max=worst) for part in loss(blocks)]


def mean(losses: Losses) -> float:
    """Returns the mean over the sources."""
    return fmean(float(part.mean()) for part in losses)


def harm(after: Losses, without: Losses) -> Harm:
    """Returns how much worse `after` is than `without`, window by window.

    The standard error is that of a stratified mean, so differences between sources do not enlarge it.
    """
    parts = [one - other for one, other in zip(after, without, strict=True)]
    nats = mean(parts)
    # One window has no standard error.
    variance = fmean(float(part.var()) / part.numel() if part.numel() > 1 else inf for part in parts) / len(parts)
    if variance == 0.0:
        return Harm(nats, WORST_T if nats > 0 else -WORST_T if nats < 0 else 0.0)
    return Harm(nats, max(-WORST_T, min(WORST_T, nats / sqrt(variance))))
