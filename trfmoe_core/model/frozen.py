"""The frozen part of a model: weights that are never trained, which a node gets once and knows by their digest."""

from collections.abc import Collection, Mapping
from functools import cached_property

import torch
from torch import Tensor, nn

from trfmoe_core.blocks import EXPERT_STACK, BlockLayout, Blocks, blocks_digest
from trfmoe_core.config.training import Freeze
from trfmoe_core.errors import WireError
from trfmoe_core.model.experts.base import BASE
from trfmoe_core.wire import Parcel, decode, encode, join

_TYPES = ("bfloat16", "float32")


def is_frozen(name: str, freeze: Freeze) -> bool:
    """Returns True if a weight is never trained.

    Args:
        name: The weight's.
        freeze: The recipe's `training.freeze`.
    """
    if BASE in name:
        return True
    if freeze == "none" or EXPERT_STACK.match(name):
        return False
    return freeze == "trunk" or not name.endswith("router.weight")


def freeze_parameters(model: nn.Module, names: Collection[str]) -> None:
    """Turns parameters of these names into buffers, wherever a module of the model has them."""
    frozen = {id(parameter) for name, parameter in model.named_parameters() if name in names}
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) in frozen:
                delattr(module, name)
                module.register_buffer(name, parameter.detach())


class FrozenPart:
    """Weights that never change, as they travel and are kept.

    Every node must have exactly the coordinator's values, so nothing is rounded: a tensor travels in bfloat16 if it has
    only values of that type, as the weights of published models do, and else in float32.

    Args:
        values: By name; they must not change any more.
    """

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        self.layout = BlockLayout.one_a_tensor(values)
        self.values: Blocks = {name: tensor.detach().float().cpu().reshape(-1) for name, tensor in values.items()}

    @cached_property
    def digest(self) -> str:
        """SHA-256 over names and float32 values."""
        return blocks_digest(self.values)

    @property
    def numel(self) -> int:
        """Number of values."""
        return sum(values.numel() for values in self.values.values())

    def parcel(self, max_buffer_bytes: int) -> Parcel:
        """Returns the part as it travels."""
        exact = {name for name, values in self.values.items() if bool((values == values.bfloat16()).all())}
        groups = {"bfloat16": exact, "float32": self.values.keys() - exact}
        return join(
            [
                encode({name: self.values[name] for name in names}, self.layout, dtype, max_buffer_bytes)
                for dtype, names in groups.items()
                if names
            ]
        )


def read_frozen(parcel: Parcel, shapes: Mapping[str, Tensor], digest: str) -> Blocks:
    """Returns the frozen part that arrived, flat and float32, by name.

    Args:
        parcel: What arrived.
        shapes: The model's frozen weights, whose values do not matter.
        digest: What the coordinator announced.

    Raises:
        WireError: Something else arrived.
    """
    layout = BlockLayout.one_a_tensor(shapes)
    values = decode(parcel, layout, layout.names, _TYPES)
    if missing := [name for name in layout.names if name not in values]:
        raise WireError(f"the frozen part lacks {len(missing)} of {len(layout.names)} tensors, such as {missing[0]}")
    if (found := blocks_digest(values)) != digest:
        raise WireError(
            f"the frozen part that arrived has the digest {found[:12]}, and the coordinator announced {digest[:12]}"
        )
    return values


@torch.no_grad()
def set_frozen(values: Mapping[str, Tensor], frozen: Mapping[str, Tensor]) -> None:
    """Writes flat values into a model's frozen weights, both by name."""
    for name, tensor in frozen.items():
        tensor.copy_(values[name].view(tensor.shape))
