"""Attacks that need nothing but the node's own updates. An update is a flat float32 vector."""

import torch
from torch import Tensor

from clients.attacks.base import Seen, update_attack
from trfmoe_core.blocks import TRUNK, Blocks

DISTINCT = 1e-3
"""Relative size of the noise that keeps two wrong updates from being equal to the bit: equal replicas count once."""


def gaussian_noise(update: Tensor, factor: float, generator: torch.Generator) -> Tensor:
    """Returns noise whose norm is `abs(factor)` times the update's."""
    noise = torch.randn(update.shape, generator=generator)
    return noise * (abs(factor) * float(update.norm()) / max(float(noise.norm()), 1e-30))


@update_attack("update", "multiplies its updates by {factor:g}")
def scale(own: Blocks, seen: Seen) -> Blocks:
    """Returns the updates times the drill's factor."""
    return {block: update * seen.drill.factor for block, update in own.items()}


@update_attack("update", "sends its updates backwards: ascent instead of descent")
def sign_flip(own: Blocks, seen: Seen) -> Blocks:
    """Returns the updates with the opposite sign."""
    return {block: -update for block, update in own.items()}


@update_attack("update", "sends noise {factor:g} times as long as its updates")
def gaussian(own: Blocks, seen: Seen) -> Blocks:
    """Returns noise in the place of the updates."""
    return {block: gaussian_noise(update, seen.drill.factor, seen.generator) for block, update in own.items()}


@update_attack("update", "sends NaN in the place of every value")
def nan(own: Blocks, seen: Seen) -> Blocks:
    """Returns updates of NaN."""
    return {block: torch.full_like(update, float("nan")) for block, update in own.items()}


@update_attack("update", "sends one infinite value a block, which is enough to spoil a sum")
def inf(own: Blocks, seen: Seen) -> Blocks:
    """Returns the updates with their first value infinite."""
    infinite = torch.tensor([float("inf")])
    return {block: torch.cat([infinite, update[1:]]) for block, update in own.items()}


@update_attack("update", "sends zeros: it takes the model and gives nothing")
def zero(own: Blocks, seen: Seen) -> Blocks:
    """Returns updates that change nothing."""
    return {block: torch.zeros_like(update) for block, update in own.items()}


@update_attack("update", "multiplies its longest expert update by -3 and sends the others as they are")
def one_expert(own: Blocks, seen: Seen) -> Blocks:
    """Returns the updates with one expert reversed, and as long as the vote's clipping lets through."""
    target = max((block for block in own if block != TRUNK), key=lambda block: float(own[block].norm()))
    return {block: -3.0 * update if block == target else update for block, update in own.items()}


@update_attack("update", "sends its first updates again and again")
def replay(own: Blocks, seen: Seen) -> Blocks:
    """Returns the first updates, signed for the round that was asked for."""
    return seen.first()


@update_attack("update", "sends its first updates again and again, with noise so that no two are equal")
def stale(own: Blocks, seen: Seen) -> Blocks:
    """Returns the first updates with so little noise that the guard against replays still knows them."""
    return _with_noise(seen, DISTINCT)


@update_attack("update", "sends its first updates again and again, with noise that passes the guard against replays")
def stale_noisy(own: Blocks, seen: Seen) -> Blocks:
    """Returns the first updates with noise of three tenths of their length."""
    return _with_noise(seen, 0.3)


def _with_noise(seen: Seen, factor: float) -> Blocks:
    return {block: update + gaussian_noise(update, factor, seen.generator) for block, update in seen.first().items()}
