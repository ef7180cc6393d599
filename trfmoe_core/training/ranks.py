"""The processes (ranks) that train one model together on one node, one for each device."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """This process's number among the ranks. A single rank communicates with nobody."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """True if this process is the one that writes the common results."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Sums the tensor over all ranks, in place, and returns it."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def largest(self, value: int) -> int:
        """Returns the largest of the ranks' numbers."""
        if self.size == 1:
            return value
        found = torch.tensor(value)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)

    def wait(self) -> None:
        """Returns when all ranks have called it."""
        self.largest(0)


ALONE = Ranks()


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """Joins the process group of torch's launcher for the duration of the block.

    Tensors on the CPU are exchanged by gloo, those on CUDA devices by NCCL.
    """
    # All ranks are on this machine, and some machines cannot resolve their own name.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
