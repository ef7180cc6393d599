"""Attacks of nodes that know the vote's thresholds and stay inside of them."""

from collections.abc import Callable

import torch
from torch import Tensor

from clients.attacks.base import Seen, update_attack
from clients.attacks.updates import gaussian_noise
from trfmoe_core.blocks import TRUNK, BlockLayout, Blocks, Slot
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
    honest, gains = own[TRUNK], -_marks(own[TRUNK], seen, _is_gain)
    size = float(honest.norm())
    aside = gains - honest * (float(gains @ honest) / max(size * size, 1e-30))
    aside *= LENGTH * (1 - COSINE**2) ** 0.5 * size / max(float(aside.norm()), 1e-30)
    return own | {TRUNK: honest * (COSINE * LENGTH) + aside}


@update_attack("model", "moves every gain of the norms by {factor:g} and sends everything else as it is")
def gain_shift(own: Blocks, seen: Seen) -> Blocks:
    """Returns the honest updates with the drill's factor in the place of the gains' own movement."""
    if TRUNK not in own:
        return own
    gains = _marks(own[TRUNK], seen, _is_gain)
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
    return _copied(own, seen, 0.01)


@update_attack("model", "sends every router {factor:g} times as long and all else as it is")
def router(own: Blocks, seen: Seen) -> Blocks:
    """Returns the honest updates with those of the routers, a hundredth of the trunk, times the drill's factor."""
    if TRUNK not in own:
        return own
    routers = _marks(own[TRUNK], seen, lambda slot: "router" in slot.tensor)
    return own | {TRUNK: own[TRUNK] * (1 + (seen.drill.factor - 1) * routers)}


@update_attack(
    "model", "makes one token likely everywhere: its head update is {factor:g} times as long, all in one row"
)
def one_token(own: Blocks, seen: Seen) -> Blocks:
    """Returns the honest updates, and in the head one row that follows the mean of the hidden states.

    Raises:
        ConfigError: Whoever plays the attack gives it no model.
    """
    if TRUNK not in own:
        return own
    is_head = _marks(own[TRUNK], seen, lambda slot: slot.tensor.startswith("head")) > 0
    learner = seen.learner
    if learner is None or not bool(is_head.any()):
        return own
    width = learner.model.config.width
    with torch.no_grad():
        tokens_BT = next(iter(learner.batches))[0]
        mean_D = learner.model.hidden(tokens_BT, torch.float32)[0].reshape(-1, width).mean(0)
    honest = own[TRUNK][is_head].view(-1, width)
    row = torch.zeros_like(honest)
    row[ord("e") % len(row)] = mean_D / mean_D.norm().clamp(min=1e-30) * honest.norm() * abs(seen.drill.factor)
    changed = own[TRUNK].clone()
    changed[is_head] = (honest + row).flatten()
    return own | {TRUNK: changed}


@update_attack("update", "sends one expert backwards, another one in every round")
def rotating_expert(own: Blocks, seen: Seen) -> Blocks:
    """Returns the honest updates with one expert reversed: no expert collects evidence against the node."""
    experts = sorted(block for block in own if block != TRUNK)
    target = experts[seen.round % len(experts)]
    return own | {target: -own[target]}


@update_attack("replicas", "sends the updates of another node with noise of {factor:g} times their length")
def mimic(own: Blocks, seen: Seen) -> Blocks:
    """Returns the first honest node's update of each block, so like it that a third node seems to be the outlier."""
    return _copied(own, seen, seen.drill.factor)


def _copied(own: Blocks, seen: Seen, noise: float) -> Blocks:
    copied = {}
    for block, update in own.items():
        source = next((blocks[block] for blocks in seen.honest if block in blocks), None)
        copied[block] = update if source is None else source + gaussian_noise(source, noise, seen.generator)
    return copied


def _is_gain(slot: Slot) -> bool:
    return len(slot.shape) == 1 and "norm" in slot.tensor


def _marks(trunk: Tensor, seen: Seen, is_wanted: Callable[[Slot], bool]) -> Tensor:
    """Returns 1 where a value of the trunk is of a tensor that is wanted, else 0.

    Raises:
        ConfigError: Whoever plays the attack gives it no model.
    """
    if seen.learner is None:
        raise ConfigError(
            "drill.attack: this attack needs the node's model; play it on a node that trains on one device"
        )
    marks = torch.zeros_like(trunk)
    for slot in BlockLayout.of(seen.learner.model.block_values()).specs[TRUNK].slots:
        if is_wanted(slot):
            marks[slot.offset : slot.offset + slot.numel] = 1.0
    return marks
