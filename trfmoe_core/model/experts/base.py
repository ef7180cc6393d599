"""The experts of one layer that a node holds, in stacks whose dimension 0 is the expert.

S = slots sorted by expert, D = width, E = experts, F = hidden width of an expert.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from trfmoe_core.config.model import ModelConfig
from trfmoe_core.model.dispatch import Dispatch
from trfmoe_core.model.grouped import Backend, grouped_multiply
from trfmoe_core.model.local_experts import LocalExperts, whole_layer
from trfmoe_core.registry import Registry

Multiply = Callable[[Tensor, str], Tensor]
"""Takes rows sorted by expert and the name of a stack; returns each row times its expert's transposed matrix."""

BASE = "experts.base."
"""Part of the names of tensors that the experts of a layer share. They are never trained."""

FROZEN = "frozen_"
"""Prefix of the buffers that hold the stacks of experts which the node uses but does not train."""


class Experts(nn.Module):
    """Base of every kind of expert. A kind says which matrices an expert has, and how they make the output.

    A stack called `w_down_EDF` feeds the residual stream and gets smaller initial weights. A row of zeros must give
    zeros: it belongs to an expert that is not on this node. Tensors below `BASE` are shared and never trained.
    """

    def __init__(self, config: ModelConfig, local: LocalExperts | None = None) -> None:
        super().__init__()
        self.local = local or whole_layer(config.experts)
        self.backend: Backend | None = None
        for name, shape in self.shapes(config).items():
            self.register_parameter(name, nn.Parameter(torch.empty(len(self.local.trained), *shape)))
            if self.local.frozen:
                self.register_buffer(FROZEN + name, torch.empty(len(self.local.frozen), *shape))

    @staticmethod
    def shapes(config: ModelConfig) -> dict[str, tuple[int, int]]:
        """Returns the name of each stack and the (output width, input width) of one expert's matrix in it."""
        raise NotImplementedError

    @classmethod
    def matrices(cls, config: ModelConfig) -> dict[str, tuple[int, ...]]:
        """Returns for each stack the rows of the separate matrices of one expert in it, from top to bottom."""
        return {name: (rows,) for name, (rows, _) in cls.shapes(config).items()}

    @classmethod
    def activation_width(cls, config: ModelConfig) -> int:
        """Returns how many numbers a slot keeps for the backward pass: by default every matrix's in- and output."""
        return sum(rows + columns for rows, columns in cls.shapes(config).values())

    @staticmethod
    def initial_std(name: str, columns: int, std: float) -> float:
        """Returns the standard deviation of initial weights.

        Args:
            name: Of a matrix or a stack, without the layer's part.
            columns: Width of what the matrix multiplies.
            std: What the model gives it otherwise.
        """
        return std

    def compute(self, x_SD: Tensor, multiply: Multiply) -> Tensor:
        """Returns (S, D): every row after its expert."""
        raise NotImplementedError

    def forward(self, x_SD: Tensor, dispatch: Dispatch) -> Tensor:
        """Returns (S, D): every sorted row after its expert; zeros for rows whose expert is not on this node."""

        def multiply(rows: Tensor, name: str) -> Tensor:
            frozen = self.get_buffer(FROZEN + name) if self.local.frozen else None
            return grouped_multiply(rows, self.get_parameter(name), dispatch, self.backend, frozen)

        return self.compute(x_SD, multiply)


EXPERTS: Registry[type[Experts]] = Registry("model.expert", "trfmoe_core.model.experts")
