"""The experts of one layer that lie on this node, in stacks whose dimension 0 is the expert.

S = slots sorted by expert, D = width, E = experts, F = hidden width of an expert, G = 2 F (gate rows, then up rows).
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from trfmoe_core.config.model import ModelConfig
from trfmoe_core.model.dispatch import Backend, Dispatch, grouped_multiply
from trfmoe_core.model.local import LocalExperts, whole_layer
from trfmoe_core.model.memory import reused
from trfmoe_core.model.parts import EXPERTS

Multiply = Callable[[Tensor, str], Tensor]
"""Rows sorted by expert, and a stack's name -> every row times the transposed matrix of its expert."""

FROZEN = "frozen_"
"""Begins the names of the buffers that hold the stacks of experts which are here but not trained."""


class Experts(nn.Module):
    """Base of every kind of expert: says which matrices one has, and how they make the output.

    A stack called `w_down_EDF` feeds the residual stream and is initialised smaller. A row of zeros must give zeros.
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
        """Returns stack name -> (output width, input width) of one expert's matrix."""
        raise NotImplementedError

    def compute(self, x_SD: Tensor, multiply: Multiply) -> Tensor:
        """Returns (S, D): every row through its expert; `multiply` takes the rows and a stack's name."""
        raise NotImplementedError

    def forward(self, x_SD: Tensor, dispatch: Dispatch) -> Tensor:
        """Returns (S, D): every sorted row through its expert; zeros for rows of experts that are not here."""

        def multiply(rows: Tensor, name: str) -> Tensor:
            frozen = self.get_buffer(FROZEN + name) if self.local.frozen else None
            return grouped_multiply(rows, self.get_parameter(name), dispatch, self.backend, frozen)

        return self.compute(x_SD, multiply)


@EXPERTS.register("swiglu")
class SwiGLUExperts(Experts):
    """`down(silu(gate(x)) * up(x))` in transformers' layout: gate and up in one matrix."""

    @staticmethod
    def shapes(config: ModelConfig) -> dict[str, tuple[int, int]]:
        """Returns the matrices of one expert."""
        width, hidden = config.width, config.expert_width
        return {"w_gate_up_EGD": (2 * hidden, width), "w_down_EDF": (width, hidden)}

    def compute(self, x_SD: Tensor, multiply: Multiply) -> Tensor:
        """Returns (S, D)."""
        return multiply(swiglu(multiply(x_SD, "w_gate_up_EGD")), "w_down_EDF")


def swiglu(gate_up_SG: Tensor) -> Tensor:
    """Returns `silu(gate) * up` of the two halves of the last dimension (arXiv 2002.05202)."""
    if torch.compiler.is_compiling():
        gate_SF, up_SF = gate_up_SG.chunk(2, dim=-1)
        return nnf.silu(gate_SF) * up_SF
    hidden_SF: Tensor = _SwiGLU.apply(gate_up_SG)  # type: ignore[no-untyped-call]
    return hidden_SF


class _SwiGLU(torch.autograd.Function):
    """Keeps only its input for the backward pass and writes both halves of the gradient in place."""

    @staticmethod
    def forward(ctx: Any, gate_up_SG: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up_SG)
        gate_SF, up_SF = gate_up_SG.chunk(2, dim=-1)
        hidden_SF = reused(tuple(gate_SF.shape), gate_SF)
        torch.ops.aten.silu.out(gate_SF, out=hidden_SF)
        return hidden_SF.mul_(up_SF)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (gate_up_SG,) = ctx.saved_tensors
        gate_SF, up_SF = gate_up_SG.chunk(2, dim=-1)
        grad_SG = reused(tuple(gate_up_SG.shape), gate_up_SG)
        grad_gate_SF, grad_up_SF = grad_SG.chunk(2, dim=-1)
        scratch_SF = torch.ops.aten.silu.out(gate_SF, out=reused(tuple(gate_SF.shape), gate_SF))
        torch.mul(scratch_SF, grads[0], out=grad_up_SF)
        torch.mul(grads[0], up_SF, out=scratch_SF)
        torch.ops.aten.silu_backward.grad_input(scratch_SF, gate_SF, grad_input=grad_gate_SF)
        return grad_SG
