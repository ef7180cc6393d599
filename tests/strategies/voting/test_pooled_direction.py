"""Direction over all blocks: a faint reversal is found, and one node alone can have no other outvoted."""

from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from strategies.voting.pooled_direction import contradicting, opposed, pooled_cosines
from trfmoe_core.blocks import TRUNK

BLOCKS = [TRUNK, *(f"layers.0.experts.{number}" for number in range(16))]


def updates_of(nodes: int, shared: float, seed: int = 0) -> dict[str, dict[str, Tensor]]:
    """Returns updates whose cosines are about `shared` in the mean."""
    draw = torch.Generator().manual_seed(seed)
    common = {block: torch.randn(4000, generator=draw) for block in BLOCKS}
    noise = (1 / shared - 1) ** 0.5
    return {
        f"n{number}": {b: common[b] + noise * torch.randn(4000, generator=draw) for b in BLOCKS}
        for number in range(nodes)
    }


@pytest.mark.parametrize("nodes", [3, 4, 9])
def test_a_reversed_node_is_found_where_single_blocks_say_nothing(nodes: int) -> None:
    updates = updates_of(nodes, 0.04)
    holders = dict.fromkeys(BLOCKS, sorted(updates))
    assert opposed(pooled_cosines(updates, holders), 0.0) == []
    updates["n0"] = {block: -update for block, update in updates["n0"].items()}
    cosines = pooled_cosines(updates, holders)
    assert all(cosine[0] > -0.1 for cosine in cosines.values()), "no single block would disagree"
    assert opposed(cosines, 0.0) == ["n0"]


def test_strangers_whose_updates_are_orthogonal_stay() -> None:
    for seed in range(20):
        updates = updates_of(3, 1e-4, seed)
        assert opposed(pooled_cosines(updates, dict.fromkeys(BLOCKS, sorted(updates))), 0.0) == []


def test_nodes_that_share_nothing_are_not_compared() -> None:
    updates = updates_of(3, 0.5)
    assert pooled_cosines(updates, {BLOCKS[1]: ["n0", "n1"], BLOCKS[2]: ["n1", "n2"]}) == {}


@given(st.integers(3, 9), st.data())
def test_one_node_alone_can_have_nobody_else_outvoted(nodes: int, data: st.DataObject) -> None:
    names = [f"n{number}" for number in range(nodes)]
    honest = (0.05, 0.01)
    cosines = dict.fromkeys(combinations(names, 2), honest)
    liar = data.draw(st.sampled_from(names))
    for pair in cosines:
        if liar in pair:
            cosines[pair] = (data.draw(st.floats(-1, 1)), data.draw(st.floats(0, 0.5)))
    assert set(opposed(cosines, 0.0)) <= {liar}


@given(st.integers(3, 9), st.data())
def test_a_liar_is_in_every_pair_that_contradicts_itself(nodes: int, data: st.DataObject) -> None:
    names = [f"n{number}" for number in range(nodes)]
    cosines = dict.fromkeys(combinations(names, 2), (0.05, 0.01))
    liar = data.draw(st.sampled_from(names))
    for pair in cosines:
        if liar in pair:
            cosines[pair] = (data.draw(st.floats(-1, 1)), data.draw(st.floats(0, 0.5)))
    pairs = contradicting(cosines, 0.0)
    assert all(liar in pair for pair in pairs)
    assert not pairs or opposed(cosines, 0.0) == []


def test_two_that_contradict_each_other_are_a_pair_unless_nobody_could_judge_them() -> None:
    together, apart = (0.1, 0.01), (-0.9, 0.01)
    three = {("a", "b"): together, ("a", "c"): together, ("b", "c"): apart}
    assert opposed(three, 0.0) == [] and contradicting(three, 0.0) == [("b", "c")]
    assert contradicting({("b", "c"): apart}, 0.0) == []
    four = dict.fromkeys(combinations("abcd", 2), together) | {("a", "b"): apart, ("c", "d"): apart}
    assert contradicting(four, 0.0) == []
