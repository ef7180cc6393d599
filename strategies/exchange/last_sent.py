"""The model that the nodes were sent last. The next difference is taken against it.

A difference is taken against the values that nodes have decoded, not against the exact model, so the next broadcast
corrects the rounding errors of this one. The coordinator keeps the same values as the nodes, equal to the bit, and
stores them with every commit.
"""

from collections.abc import Callable, Collection, Iterator, Mapping

import torch
from torch import Tensor

from trfmoe_core.blocks import Blocks, block_digest, combined_digest
from trfmoe_core.wire import advanced


class LazyBlocks(Mapping[str, Tensor]):
    """Blocks that are computed on access, so that only one is in memory at a time."""

    def __init__(self, names: Collection[str], make: Callable[[str], Tensor]) -> None:
        self._names, self._make = names, make

    def __getitem__(self, name: str) -> Tensor:
        return self._make(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class LastSent:
    """The model as the nodes have it.

    Args:
        dtype: Number type of a whole model on the wire. Every value is rounded to it, so that a node that gets the
            whole model has exactly the values of the others.
        blocks: `blocks` of an earlier object, to go on from there.
    """

    def __init__(self, dtype: str, blocks: Blocks | None = None) -> None:
        self._dtype: torch.dtype = getattr(torch, dtype)
        self.blocks: Blocks = dict(blocks or {})
        self._digests = {name: block_digest(values.float()) for name, values in self.blocks.items()}

    @property
    def digests(self) -> dict[str, str]:
        """Block -> digest of its float32 values."""
        return dict(self._digests)

    def digest(self, names: Collection[str]) -> str | None:
        """Returns the base digest of some blocks; None when nothing was sent yet."""
        if not self._digests:
            return None
        return combined_digest({name: self._digests[name] for name in names})

    def begin(self, model: Mapping[str, Tensor]) -> None:
        """Takes a whole model, as it travels."""
        self.blocks = {name: values.to(self._dtype, copy=True) for name, values in model.items()}
        self._digests = {name: block_digest(values.float()) for name, values in self.blocks.items()}

    def differences(self, model: Mapping[str, Tensor], names: Collection[str]) -> LazyBlocks:
        """Returns what some blocks lack to be those of `model`."""
        return LazyBlocks(names, lambda name: model[name] - self.blocks[name])

    def advance(self, name: str, difference: Tensor) -> None:
        """Takes a difference as nodes decode it."""
        self.blocks[name] = advanced(self.blocks[name], difference, self._dtype)
        self._digests[name] = block_digest(self.blocks[name].float())

    def whole(self, names: Collection[str]) -> LazyBlocks:
        """Returns some blocks as float32."""
        return LazyBlocks(names, lambda name: self.blocks[name].float())
