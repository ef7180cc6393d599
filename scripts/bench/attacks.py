"""What the liars of the witness benchmark send in the place of their updates."""

from collections.abc import Callable

import torch
from torch import Tensor

from clients import attacks
from trfmoe_core.blocks import TRUNK, Blocks

Lie = Callable[[Blocks, dict[str, Blocks], Blocks], Blocks]
"""The liar's honest updates, the other honest nodes' and the liar's first ones -> what it sends."""


def _scaled(factor: float) -> Lie:
    return lambda own, honest, first: {block: factor * update for block, update in own.items()}


def _from_honest(make: Callable[[list[Tensor]], Tensor]) -> Lie:
    """Returns a lie that is made of the honest holders' replicas of each block; its own where there are none."""

    def lie(own: Blocks, honest: dict[str, Blocks], first: Blocks) -> Blocks:
        found = {block: [other[block] for other in honest.values() if block in other] for block in own}
        return {block: make(updates) if updates else own[block] for block, updates in found.items()}

    return lie


def _stale(noise: float) -> Lie:
    def lie(own: Blocks, honest: dict[str, Blocks], first: Blocks) -> Blocks:
        seed = int(torch.stack([update.sum() for update in own.values()]).sum().abs() * 1e6)
        generator = torch.Generator().manual_seed(seed)
        return {block: update + attacks.gaussian(update, noise, generator) for block, update in first.items()}

    return lie


def _one_expert(own: Blocks, honest: dict[str, Blocks], first: Blocks) -> Blocks:
    """The longest of the node's expert updates, reversed and as long as the clip lets through."""
    target = max((block for block in own if block != TRUNK), key=lambda block: float(own[block].norm()))
    return {block: -3.0 * update if block == target else update for block, update in own.items()}


LIES: dict[str, Lie] = {
    "sign": _scaled(-1.0),
    "sign_x3": _scaled(-3.0),
    "sign_x0.3": _scaled(-0.3),
    "sign_x0.4": _scaled(-0.4),
    "x100": _scaled(100.0),
    "nan": _scaled(float("nan")),
    "replay": lambda own, honest, first: first,
    "stale": _stale(attacks.APART),
    "stale_noisy": _stale(0.3),
    "inner_product": _from_honest(lambda updates: attacks.inner_product(updates, 2.0)),
    "a_little": _from_honest(lambda updates: attacks.little_enough(updates, 1.5)),
    "late_sign": _scaled(-1.0),
    "one_expert": _one_expert,
}
"""`late_sign` is honest for the first half of the run. `ascent` is none of these: it trains, uphill.

`replay` and `stale` repeat the first update, exactly and with so little noise that the guard against replays knows it;
`stale_noisy` passes the guard.
"""
