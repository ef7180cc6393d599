"""The parts of a block whose lengths are judged each by itself: the trunk's tensors by their kind.

A liar would otherwise spend the length of all matrices on a few values that matter, such as the gains of the norms.
"""

import re
from collections.abc import Mapping, Sequence

from trfmoe_core.blocks import TRUNK, BlockLayout, Slot

Part = tuple[slice, ...]
"""Where a part lies in its block: ranges of values, in order."""

Lengthened = Sequence[tuple[Part, Mapping[str, float]]]
"""All parts of a block, and of each: node -> multiplier below 1 of a replica that is too long there."""

_LAYER = re.compile(r"^layers\.\d+\.")


def parts_of(layout: BlockLayout) -> dict[str, tuple[Part, ...]]:
    """Returns the parts of the blocks that have several: of the trunk, one for each kind of tensor over all layers.

    A trunk that is never trained is no block.
    """
    if TRUNK not in layout.specs:
        return {}
    kinds: dict[str, list[slice]] = {}
    for slot in layout.specs[TRUNK].slots:
        kinds.setdefault(_kind(slot), []).append(slice(slot.offset, slot.offset + slot.numel))
    return {TRUNK: tuple(tuple(places) for places in kinds.values())}


def whole(numel: int) -> tuple[Part, ...]:
    """Returns the parts of a block that has only one."""
    return ((slice(0, numel),),)


def _kind(slot: Slot) -> str:
    """Returns `norm` or `bias` for a vector, and the name of the module for a matrix, such as `attention`."""
    if len(slot.shape) == 1:
        return "norm" if "norm" in slot.tensor else "bias"
    return _LAYER.sub("", slot.tensor).partition(".")[0]
