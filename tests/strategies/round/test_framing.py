"""One node alone can have no action taken against another: no strike, no conviction, no suspicion, no refusal.

The honest nodes agree with each other, as honest nodes do whose text is alike. The attacker sees all of their updates.
"""

from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from strategies.membership.reputation import Reputation
from strategies.placement.placement import place
from strategies.round.ballots import Ballots
from strategies.round.standings import standings_of
from strategies.voting.vote import Agreement
from strategies.witness.jury import Jury
from strategies.witness.loss_increase import Loss
from trfmoe_core.blocks import TRUNK, Blocks
from trfmoe_core.config import ReputationConfig, WitnessConfig

EXPERTS = [f"layers.0.experts.{number}" for number in range(12)]
SIZE = 192
PARTS = {TRUNK: ((slice(0, 12), slice(60, 72)), (slice(12, 60), slice(72, SIZE)))}
ROUNDS = 3
WINDOWS = 12


def honest_updates(seed: int, likeness: float, step: float) -> Blocks:
    """Returns updates that go a step towards 1 everywhere, with as much noise as the likeness leaves."""
    draw = torch.Generator().manual_seed(seed)
    noise = (1 / likeness**2 - 1) ** 0.5
    return {block: step * (1 + noise * torch.randn(SIZE, generator=draw)) for block in [*EXPERTS, TRUNK]}


def forged(own: Tensor, honest: list[Tensor], draw: Random, seed: int) -> Tensor:
    """Returns one false update of a block, made of what the honest nodes send."""
    noise = torch.randn(SIZE, generator=torch.Generator().manual_seed(seed))
    target = draw.choice(honest) if honest else own
    mean = torch.stack(honest).mean(0) if honest else own
    size = float(target.norm())
    kind = draw.choice(["near", "near", "back", "mean", "push", "part", "long", "noise", "zero", "own"])
    if kind == "near":
        return target + draw.choice([0.0, 0.003, 0.05, 0.3, 1.0]) * size * noise / noise.norm()
    if kind == "back":
        return -draw.uniform(0.1, 3.0) * target
    if kind == "mean":
        return draw.choice([-2.0, -1.0, 0.3, 1.0, 1.49, 2.9]) * mean
    if kind == "push":
        return target - draw.uniform(0.0, 1.5) * mean
    if kind == "part":
        changed = target.clone()
        for where in PARTS[TRUNK][0]:
            changed[where] *= draw.choice([-2.9, -1.0, 0.0, 1.49, 2.9, 50.0])
        return changed
    if kind == "long":
        return draw.choice([1.4, 2.0, 2.9, 10.0]) * own
    if kind == "noise":
        return draw.choice([0.5, 1.0, 2.5]) * size * noise / noise.norm()
    return torch.zeros(SIZE) if kind == "zero" else own


def lie(own: Blocks, others: list[Blocks], seed: int) -> Blocks:
    """Returns the attacker's updates: one lie for all blocks, or another one for each."""
    draw = Random(seed)
    same = draw.random() < 0.5
    return {
        block: forged(update, [o[block] for o in others if block in o], Random(seed) if same else draw, seed + i)
        for i, (block, update) in enumerate(own.items())
    }


def bowl(seed: int) -> Loss:
    """A bowl a window whose lowest point is near 1: who goes too far is as wrong as who goes back."""
    centres = 1 + 0.3 * torch.randn(WINDOWS, SIZE, generator=torch.Generator().manual_seed(seed))

    def loss(blocks: Blocks) -> list[Tensor]:
        return [torch.stack([((flat - centres) ** 2).mean(1) for flat in blocks.values()]).sum(0).double()]

    return loss


def accused(seed: int, count: int, likeness: float, step: float, agreement: Agreement, witness: bool) -> set[str]:
    """Plays some rounds with one attacker, and returns the nodes against which there was any action."""
    names = [f"n{number}" for number in range(count)]
    placement = place(EXPERTS, names)
    reputation, found = Reputation(ReputationConfig(strikes=3)), set()
    attacker = names[seed % count]
    for number in range(ROUNDS):
        base = {block: torch.zeros(SIZE) for block in [*EXPERTS, TRUNK]}
        updates = {}
        for position, name in enumerate(names):
            made = honest_updates(1000 * seed + 100 * number + position, likeness, step)
            updates[name] = {block: made[block] for block in placement.held_by(name)}
        honest = [updates[name] for name in names if name != attacker]
        updates[attacker] = lie(updates[attacker], honest, seed + number)
        ballots = Ballots(placement, "majority", agreement, parts=PARTS)
        for name in names:
            ballots.add(name, updates[name])
        convicted: tuple[str, ...] = ()
        if witness:
            judged = ballots.judge(Jury(WitnessConfig(data=["-"])), base, bowl(seed + number))
            convicted = judged.convicted
            found |= {*convicted, *judged.struck.values()}
        verdicts = {block: verdict for block, _, verdict in ballots.decide(lambda block: None, {})}
        standings = standings_of(names, verdicts, names, convicted)
        reputation.observe(standings)
        found |= {name for name, standing in standings.items() if standing != "good"}
        found |= {name for name in names if reputation.records[name].strikes}
        found |= {*reputation.newly_suspect(names), *reputation.to_leave(names, 0)}
    return found - {attacker}


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**20),
    st.sampled_from([3, 4, 9]),
    st.floats(0.55, 0.95),
    st.sampled_from([Agreement(), Agreement(cosine=0.0, margin=0.3), Agreement(cosine=0.0, pooled_cosine=0.0)]),
)
def test_one_node_alone_can_have_nobody_else_struck(
    seed: int, count: int, likeness: float, agreement: Agreement
) -> None:
    assert accused(seed, count, likeness, 0.2, agreement, witness=False) == set()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**20), st.sampled_from([3, 4, 9]), st.floats(0.7, 0.95), st.floats(0.1, 1.0))
def test_one_node_alone_can_have_nobody_else_convicted(seed: int, count: int, likeness: float, step: float) -> None:
    """Below a likeness of 0.7 the full step is mostly noise, and a mean without any honest node is better."""
    assert accused(seed, count, likeness, step, Agreement(), witness=True) == set()


@pytest.mark.parametrize("witness", [False, True])
def test_the_attacks_that_frame_nobody_are_no_empty_threat(witness: bool) -> None:
    """The attacker itself is struck or convicted in some of them, and with no attacker nobody is."""
    assert any(struck_attackers(seed, witness) for seed in range(6))


def struck_attackers(seed: int, witness: bool) -> bool:
    names = ["n0", "n1", "n2"]
    placement = place(EXPERTS, names)
    made = {name: honest_updates(seed + position, 0.8, 0.2) for position, name in enumerate(names)}
    made["n2"] = lie(made["n2"], [made["n0"], made["n1"]], seed)
    ballots = Ballots(placement, "majority", Agreement(), parts=PARTS)
    for name in names:
        ballots.add(name, made[name])
    convicted: tuple[str, ...] = ()
    if witness:
        base = {block: torch.zeros(SIZE) for block in [*EXPERTS, TRUNK]}
        convicted = ballots.judge(Jury(WitnessConfig(data=["-"])), base, bowl(seed)).convicted
    verdicts = {block: verdict for block, _, verdict in ballots.decide(lambda block: None, {})}
    return standings_of(names, verdicts, names, convicted)["n2"] != "good"
