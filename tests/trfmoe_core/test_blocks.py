"""Blocks: every parameter stands in exactly one, and a round trip changes nothing."""

import torch

from trfmoe_core.blocks import TRUNK, BlockLayout, blocks_digest
from trfmoe_core.config import ModelConfig
from trfmoe_core.model.transformer import build_model

CONFIG = ModelConfig(layers=2, width=16, heads=2, experts=3, top_k=2, expert_width=8, context=8)


def test_blocks_cover_the_model_once_and_round_trip() -> None:
    parameters = dict(build_model(CONFIG, 64, seed=0).named_parameters())
    layout = BlockLayout.of(parameters)
    assert layout.experts == [f"layers.{layer}.experts.{number}" for layer in range(2) for number in range(3)]
    blocks = layout.gather(parameters)
    assert sum(flat.numel() for flat in blocks.values()) == sum(p.numel() for p in parameters.values())
    other = dict(build_model(CONFIG, 64, seed=1).named_parameters())
    assert blocks_digest(layout.gather(other)) != blocks_digest(blocks)
    layout.scatter(blocks, other)
    for name, parameter in parameters.items():
        assert torch.equal(other[name], parameter)
    assert blocks_digest(layout.gather(other)) == blocks_digest(blocks)


def test_an_expert_block_is_that_expert_alone() -> None:
    parameters = dict(build_model(CONFIG, 64, seed=0).named_parameters())
    layout = BlockLayout.of(parameters)
    layout.scatter({"layers.1.experts.2": layout.zeros()["layers.1.experts.2"]}, parameters)
    stack = parameters["layers.1.experts.w_gate_up_EGD"].detach()
    assert float(stack[2].abs().sum()) == 0
    assert float(stack[1].abs().sum()) > 0
    assert all("expert" not in slot.tensor for slot in layout.specs[TRUNK].slots)
