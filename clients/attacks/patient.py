"""Attacks of nodes that know the vote's thresholds and stay inside of them."""

import torch
from torch import Tensor

from clients.attacks.base import Seen, update_attack
from clients.attacks.updates import gaussian_noise
from trfmoe_core.blocks import TRUNK, BlockLayout, Blocks
from trfmoe_core.errors import ConfigError

COSINE, LENGTH = 0.4, 2.7
"""Of the false trunk update: cosine with the honest one, and length relative to it."""


@update_attack(
    "model", "sends a trunk update that is almost three times as long, the surplus in the gains of the norms"
)
def gain_overshoot(own: Blocks, seen: Seen) -> Blocks:
    """Returns honest experts and a trunk that agrees with the honest one, but shrinks the gains of all norms."""
    if TRUNK not in own:
        return own
    honest, gains = own[TRUNK], -_gains(own[TRUNK], seen)
    size = float(honest.norm())
    aside = gains - honest * (float(gains @ honest) / max(size * size, 1e-30))
    aside *= LENGTH * (1 - COSINE**2) ** 0.5 * size / max(float(aside.norm()), 1e-30)
    return own | {TRUNK: honest * (COSINE * LENGTH) + aside}


@update_attack("model", "moves every gain of the norms by {factor:g} and sends everything else as it is")
def gain_shift(own: Blocks, seen: Seen) -> Blocks:
    """Returns the honest updates with the drill's factor in the place of the gains' own movement."""
    if TRUNK not in own:
        return own
    gains = _gains(own[TRUNK], seen)
    return own | {TRUNK: torch.where(gains > 0, seen.drill.factor * gains, own[TRUNK])}


@update_attack("update", "sends its updates backwards in every second round")
def alternate(own: Blocks, seen: Seen) -> Blocks:
    """Returns the honest updates in even rounds."""
    return {block: -update for block, update in own.items()} if seen.round % 2 else own


@update_attack("update", "adds one and the same direction in every round, {factor:g} times as long as its updates")
def drift(own: Blocks, seen: Seen) -> Blocks:
    """Returns the honest updates plus noise that does not change from round to round."""
    draw = torch.Generator().manual_seed(1)
    return {block: update + gaussian_noise(update, seen.drill.factor, draw) for block, update in own.items()}


@update_attack("replicas", "sends the updates of another node with noise of a hundredth of their length")
def near_copy(own: Blocks, seen: Seen) -> Blocks:
    """Returns the first honest node's update of each block, almost; its own where no honest node holds the block."""
    copied = {}
    for block, update in own.items():
        source = next((blocks[block] for blocks in seen.honest if block in blocks), None)
        copied[block] = update if source is None else source + gaussian_noise(source, 0.01, seen.generator)
    return copied


def _gains(trunk: Tensor, seen: Seen) -> Tensor:
    """Returns 1 where a value of the trunk is a gain of a norm, else 0.

    Raises:
        ConfigError: Whoever plays the attack gives it no model.
    """
    if seen.learner is None:
        raise ConfigError(
            "drill.attack: this attack needs the node's model; play it on a node that trains on one device"
        )
    marks = torch.zeros_like(trunk)
    for slot in BlockLayout.of(seen.learner.model.block_values()).specs[TRUNK].slots:
        if len(slot.shape) == 1 and "norm" in slot.tensor:
            marks[slot.offset : slot.offset + slot.numel] = 1.0
    return marks
