"""Rivals' rules against plain references."""

import pytest
import torch
from torch import Tensor

from scripts.experiments.rivals import krum, single_owner
from strategies.voting.vote import RULES, Agreement, vote

ALIKE = Agreement(cosine=-1.0, norm_ratio=1e9)


def replicas(count: int, seed: int, size: int = 300) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    common = torch.randn(size, generator=draw)
    return {f"n{number}": common + 0.5 * torch.randn(size, generator=draw) for number in range(count)}


def krum_of(updates: list[Tensor], faulty: int) -> Tensor:
    scores = []
    for one in updates:
        distances = sorted(float((one - other).square().sum()) for other in updates if other is not one)
        scores.append(sum(distances[: max(1, len(updates) - faulty - 2)]))
    return updates[scores.index(min(scores))]


@pytest.mark.parametrize(("count", "seed"), [(3, 0), (3, 1), (4, 2), (5, 3), (7, 4)])
def test_krum_is_what_its_paper_says(count: int, seed: int) -> None:
    found = replicas(count, seed)
    update, verdict = vote("krum", found, ALIKE)
    assert update is not None and len(verdict.accepted) == 1
    torch.testing.assert_close(update, krum_of(list(found.values()), krum.FAULTY))


def test_krum_leaves_a_liar_out() -> None:
    found = replicas(3, 7)
    update, verdict = vote("krum", {**found, "n1": -10 * found["n1"]}, ALIKE)
    assert update is not None and verdict.accepted != ("n1",)


def test_a_single_owner_decides_a_block_in_n() -> None:
    assert RULES.find("single_owner") is single_owner.single_owner_rule
    chosen = []
    for seed in range(200):
        found = replicas(3, seed, 80)
        update, verdict = vote("single_owner", found, ALIKE)
        (owner,) = verdict.accepted
        assert update is not None and torch.equal(update, found[owner])
        chosen.append(owner)
    assert {owner: chosen.count(owner) > 40 for owner in found} == dict.fromkeys(found, True)
