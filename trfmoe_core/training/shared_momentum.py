"""Muon's momentum as blocks, in which form nodes share it.

The momentum of block `b` travels as a block `momentum.b` of the same parcel. It has only the hidden matrices of `b`:
nothing else has a momentum.
"""

from collections.abc import Collection, Mapping
from typing import TypeVar

import torch
from torch import Tensor

from trfmoe_core.blocks import BlockLayout, Blocks, BlockSpec, Slot
from trfmoe_core.config import ModelConfig
from trfmoe_core.model.transformer import hidden_matrices

Values = TypeVar("Values")
PREFIX = "momentum."
"""Of a block that is the momentum of another, and of a tensor's momentum in an optimizer's state."""


def with_momentum(layout: BlockLayout, model: ModelConfig) -> BlockLayout:
    """Returns the layout of what travels: a model's blocks, and the momentum of each that has one."""
    matrices = hidden_matrices(model)
    specs = dict(layout.specs)
    for block, spec in layout.specs.items():
        slots: list[Slot] = []
        for slot in spec.slots:
            if slot.tensor in matrices:
                offset = slots[-1].offset + slots[-1].numel if slots else 0
                slots.append(Slot(tensor=slot.tensor, expert=slot.expert, shape=slot.shape, offset=offset))
        if slots:
            specs[PREFIX + block] = BlockSpec(name=PREFIX + block, slots=tuple(slots))
    return BlockLayout(specs)


def momentum_names(layout: BlockLayout, blocks: Collection[str]) -> list[str]:
    """Returns the names of the momentum of some blocks, as far as they have one."""
    return [PREFIX + block for block in blocks if PREFIX + block in layout.specs]


def split_momentum(blocks: Mapping[str, Values]) -> tuple[dict[str, Values], dict[str, Values]]:
    """Returns the blocks of the model, and the others by the name of the block whose momentum they are."""
    model = {name: values for name, values in blocks.items() if not name.startswith(PREFIX)}
    momentum = {name.removeprefix(PREFIX): values for name, values in blocks.items() if name.startswith(PREFIX)}
    return model, momentum


def momentum_of(state: Mapping[str, Tensor], layout: BlockLayout, blocks: Collection[str]) -> Blocks:
    """Returns the momentum in an optimizer's state, as blocks that may travel; zeros where nothing was trained.

    Args:
        state: What `BlockOptimizer.state` returned.
        layout: By `with_momentum`.
        blocks: Blocks of the model.
    """
    found: Blocks = {}
    for name in momentum_names(layout, blocks):
        spec = layout.specs[name]
        found[name] = flat = torch.zeros(spec.numel)
        for slot in spec.slots:
            if (values := state.get(_key(slot))) is not None:
                flat[slot.offset : slot.offset + slot.numel] = values.reshape(-1)
    return found


def replace_momentum(
    state: Mapping[str, Tensor], momentum: Mapping[str, Tensor], layout: BlockLayout
) -> dict[str, Tensor]:
    """Returns an optimizer's state with another momentum.

    An expert without a state gets one. The trunk without one has none of AdamW's moments either, and starts from zero.

    Args:
        state: What `BlockOptimizer.state` returned.
        momentum: Block of the model -> its momentum, flat.
        layout: By `with_momentum`.
    """
    result = dict(state)
    for block, flat in momentum.items():
        slots = layout.specs[PREFIX + block].slots
        count = f"updates.{block}"
        if count not in state:
            if len(slots) < len(layout.specs[block].slots):
                continue
            result[count] = torch.tensor(0)
        for slot in slots:
            result[_key(slot)] = flat[slot.offset : slot.offset + slot.numel].view(slot.shape)
    return result


def _key(slot: Slot) -> str:
    return f"{PREFIX}{slot.tensor}" + ("" if slot.expert is None else f".{slot.expert}")
