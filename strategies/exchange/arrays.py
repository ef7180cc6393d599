"""Blocks as Flower's arrays, inside one process: what `Strategy.start` takes and gives back."""

import numpy as np
import torch
from flwr.app import Array, ArrayRecord

from trfmoe_core.blocks import BlockLayout, Blocks
from trfmoe_core.errors import RunError

_STYPE = "trfmoe.float32"


def to_arrays(blocks: Blocks) -> ArrayRecord:
    """Returns blocks as one raw float32 array each."""
    return ArrayRecord(
        {
            name: Array(dtype="float32", shape=(flat.numel(),), stype=_STYPE, data=flat.numpy().tobytes())
            for name, flat in blocks.items()
        }
    )


def from_arrays(arrays: ArrayRecord, layout: BlockLayout) -> Blocks:
    """Returns the blocks of `to_arrays`.

    Raises:
        RunError: when a block of the layout is missing or has another size.
    """
    blocks: Blocks = {}
    for name, spec in layout.specs.items():
        array = arrays.get(name)
        if array is None or len(array.data) != 4 * spec.numel:
            raise RunError(f"the initial arrays do not fit the model: block {name!r} is missing or of another size")
        blocks[name] = torch.from_numpy(np.frombuffer(array.data, dtype="<f4").copy())
    return blocks
