"""The memory that a process used at most, and an error that says what to lower when there is not enough."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trfmoe_core.errors import RunError


def peak_memory_bytes(device: torch.device) -> int:
    """Returns the most that torch allocated on a CUDA device; for the CPU, the most that this process held."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextmanager
def out_of_memory_explained(device: torch.device, doing: str) -> Iterator[None]:
    """Turns the errors of torch and numpy for lack of memory into a `RunError` that says what to lower.

    Args:
        device: The device that computes.
        doing: What is being done, and with which sizes.

    Raises:
        RunError: If memory runs out.
    """
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
        if not _is_lack_of_memory(error):
            raise
        # torch's message begins with the place in its source.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rpartition("err == 0. ")[2]
        raise RunError(
            f"out of memory on {device} while {doing} ({reason[:200]}); lower "
            "training.batch_size and raise training.accumulation by as much, set training.gradient_checkpointing "
            "true, or lower model.context, model.layers, model.width or model.expert_width"
        ) from error


def _is_lack_of_memory(error: Exception) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # The CPU's allocator has no error class of its own.
    text = str(error)
    return any(mark in text for mark in ("can't allocate memory", "not enough memory", "Invalid buffer size"))
