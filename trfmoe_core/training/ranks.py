"""The processes that train one model together on one node, one a device."""

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
    """Which of how many processes this is. Alone, nothing is exchanged."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes what all of them made."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Returns the tensor after adding, in place, those of all ranks."""
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
        """Returns when all ranks have come here."""
        self.largest(0)


ALONE = Ranks()


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """Joins the process group that torch's launcher describes in the environment, for as long as the block lasts.

    Tensors on the CPU travel by gloo, those on CUDA devices by NCCL.
    """
    # All ranks are on this machine, and a machine need not be able to resolve its own name.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
