"""Blocks: the unit of transport and of voting. One expert (`layers.3.experts.5`) or the whole trunk (`trunk`).

A block's values are one flat float32 vector on the CPU. Its layout (which tensors, which shapes, in which order)
follows from the model's parameter shapes alone, so every participant derives the same one.
"""

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import prod
from typing import Self

import torch
from torch import Tensor

TRUNK = "trunk"
EXPERT_STACK = re.compile(r"^layers\.(\d+)\.experts\.(\w+)$")
"""Matches the name of a stack: a tensor whose dimension 0 is the expert of a layer."""

Blocks = dict[str, Tensor]
"""Block name -> flat float32 vector."""

Values = Mapping[str, Tensor | Mapping[int, Tensor]]
"""A model's tensors by parameter name. A stack may be a mapping from expert number to tensor, possibly incomplete."""

_Entry = tuple[str, int | None, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Slot:
    """The place of one tensor in its block; `expert` is the index in dimension 0 if the tensor is a stack."""

    tensor: str
    expert: int | None
    shape: tuple[int, ...]
    offset: int

    @property
    def numel(self) -> int:
        """Number of values."""
        return prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class BlockSpec:
    """The tensors of one block, in order."""

    name: str
    slots: tuple[Slot, ...]

    @property
    def numel(self) -> int:
        """Number of values in the whole block."""
        return sum(slot.numel for slot in self.slots)


def expert_block(layer: int, expert: int) -> str:
    """Returns the block name of an expert."""
    return f"layers.{layer}.experts.{expert}"


def slot_view(values: Values, slot: Slot) -> Tensor:
    """Returns a view, without gradient, of a slot's values in a model's tensors.

    Raises:
        TypeError: If the tensor is a stack and the slot names no expert.
    """
    found = values[slot.tensor]
    if slot.expert is not None:
        found = found[slot.expert]
    if not isinstance(found, Tensor):
        raise TypeError(f"{slot.tensor} is a stack of experts, but the slot names no expert")
    return found.detach()


class BlockLayout:
    """All blocks of a model: experts by layer and number, then the trunk, if any of it is trained."""

    def __init__(self, specs: Mapping[str, BlockSpec]) -> None:
        self.specs = dict(specs)

    @classmethod
    def of(cls, parameters: Values) -> Self:
        """Returns the layout of a model's named parameters; it has only the experts that are present."""
        stacks: dict[int, list[str]] = {}
        trunk: list[str] = []
        for name in sorted(parameters):
            match = EXPERT_STACK.match(name)
            if match:
                stacks.setdefault(int(match[1]), []).append(name)
            else:
                trunk.append(name)
        specs = {}
        for layer in sorted(stacks):
            first = parameters[stacks[layer][0]]
            for expert in sorted(first) if isinstance(first, Mapping) else range(first.shape[0]):
                entries = [_entry(parameters, name, expert) for name in stacks[layer]]
                block = expert_block(layer, expert)
                specs[block] = BlockSpec(name=block, slots=_slots(entries))
        if trunk:
            specs[TRUNK] = BlockSpec(name=TRUNK, slots=_slots([_entry(parameters, name, None) for name in trunk]))
        return cls(specs)

    @classmethod
    def one_a_tensor(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Returns a layout in which every tensor is a block of its own, under its own name."""
        slots = [Slot(tensor=name, expert=None, shape=tuple(tensors[name].shape), offset=0) for name in sorted(tensors)]
        return cls({slot.tensor: BlockSpec(name=slot.tensor, slots=(slot,)) for slot in slots})

    @property
    def names(self) -> list[str]:
        """All block names in order."""
        return list(self.specs)

    @property
    def experts(self) -> list[str]:
        """The experts' block names, layer by layer."""
        return [name for name in self.specs if name != TRUNK]

    @torch.no_grad()
    def gather(self, parameters: Values, names: Collection[str] | None = None) -> Blocks:
        """Returns copies of blocks of a model's named parameters: all, or those of `names`."""
        blocks = {}
        for name, spec in self.specs.items():
            if names is not None and name not in names:
                continue
            flat = torch.empty(spec.numel, dtype=torch.float32)
            for slot in spec.slots:
                flat[slot.offset : slot.offset + slot.numel] = slot_view(parameters, slot).reshape(-1)
            blocks[name] = flat
        return blocks

    @torch.no_grad()
    def scatter(self, blocks: Mapping[str, Tensor], parameters: Values) -> None:
        """Writes blocks into a model's named parameters, in place."""
        for name, flat in blocks.items():
            for slot in self.specs[name].slots:
                values = flat[slot.offset : slot.offset + slot.numel].view(slot.shape)
                slot_view(parameters, slot).copy_(values)

    def zeros(self) -> Blocks:
        """Returns all blocks filled with zeros."""
        return {name: torch.zeros(spec.numel) for name, spec in self.specs.items()}


def block_digest(values: Tensor) -> str:
    """Returns the SHA-256 over the float32 values of one block, in hexadecimal."""
    return hashlib.sha256(values.detach().contiguous().numpy().data).hexdigest()


def combined_digest(digests: Mapping[str, str]) -> str:
    """Returns what `blocks_digest` returns for blocks of these names and digests."""
    lines = "".join(f"{name}:{digests[name]};" for name in sorted(digests))
    return hashlib.sha256(lines.encode()).hexdigest()


def blocks_digest(blocks: Mapping[str, Tensor]) -> str:
    """Returns the SHA-256 over names and digests of blocks in name order, in hexadecimal."""
    return combined_digest({name: block_digest(values) for name, values in blocks.items()})


def _slots(entries: list[_Entry]) -> tuple[Slot, ...]:
    slots = []
    offset = 0
    for tensor, expert, shape in entries:
        slots.append(Slot(tensor=tensor, expert=expert, shape=shape, offset=offset))
        offset += slots[-1].numel
    return tuple(slots)


def _entry(parameters: Values, tensor: str, expert: int | None) -> _Entry:
    whole = parameters[tensor]
    shape = whole.shape if isinstance(whole, Tensor) else next(iter(whole.values())).shape
    return tensor, expert, tuple(shape[1:] if expert is not None and isinstance(whole, Tensor) else shape)
