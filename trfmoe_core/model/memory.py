"""Large temporary tensors of the CPU in memory that was used before.

The C library gives a large block back to the system as soon as it is free, and the system hands it out again page by
page: in a training step of a small model that costs more time than what is computed in the block.
"""

import sys
import threading

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

MIN_BYTES = 1 << 18
"""Below, the C library keeps the memory itself."""

MAX_KEPT_BYTES = 4 << 30
"""At most so much is kept; beyond, memory is asked for and given back as usual."""

_ALIGNMENT = 64
_FREE = 3
"""References to an array that no tensor uses: of the list, of the loop, and of the call that counts."""

_lock = threading.Lock()
_kept: dict[int, list[npt.NDArray[np.uint8]]] = {}
_kept_bytes = 0


def reused(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Returns a contiguous tensor of any content, of the type and on the device of `like`.

    Its memory is that of an earlier one which nobody has any more, if there is one of the same size.
    """
    global _kept_bytes
    if like.device.type != "cpu" or torch.compiler.is_compiling():
        return like.new_empty(shape)
    size = like.element_size()
    for length in shape:
        size *= length
    if size < MIN_BYTES:
        return like.new_empty(shape)
    with _lock:
        arrays = _kept.setdefault(size, [])
        for array in arrays:
            if sys.getrefcount(array) <= _FREE:
                return torch.from_numpy(array).view(like.dtype).view(shape)
        if _kept_bytes + size > MAX_KEPT_BYTES:
            return like.new_empty(shape)
        block = np.empty(size + _ALIGNMENT, dtype=np.uint8)
        first = -block.ctypes.data % _ALIGNMENT
        array = block[first : first + size]
        arrays.append(array)
        _kept_bytes += size
        return torch.from_numpy(array).view(like.dtype).view(shape)
