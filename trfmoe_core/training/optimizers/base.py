"""What a local optimizer is: it updates a model block by block, and every expert has a state of its own.

A step skips the experts that received no token: neither weight decay nor old momentum changes them, and their count of
updates stays.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trfmoe_core.blocks import BlockLayout, Slot, Values, slot_view
from trfmoe_core.config.training import TrainingConfig
from trfmoe_core.errors import RunError
from trfmoe_core.registry import Registry
from trfmoe_core.training.optimizers.largest_step import LargestStep

STEP = "step"


@dataclass
class Unit:
    """One tensor of one block.

    Attributes:
        slot: Its place in the block.
        values: A view of the model's weights.
        weight_decay: The decay of these values; vectors have none.
        rows: The numbers of rows of the separate matrices that lie in the tensor, one below the other; empty if it is
            no hidden matrix (embedding, head, router, norms).
        moments: Running averages by name, and `step`, the number of updates; None before the first update.
    """

    slot: Slot
    values: Tensor
    weight_decay: float
    rows: tuple[int, ...] = ()
    moments: dict[str, Tensor] | None = None

    @property
    def key(self) -> str:
        """The tensor's name, with the expert's number if it lies in a stack."""
        return self.slot.tensor if self.slot.expert is None else f"{self.slot.tensor}.{self.slot.expert}"


class BlockOptimizer(ABC):
    """Base of the local optimizers.

    Args:
        parameters: The model's, by name. Their memory must not move; those without gradient are never changed.
        config: The recipe's settings.
        by_expert: Splits stacks by the experts' numbers in the whole model, see `MoETransformer.by_expert`. By default
            a stack holds all experts.
        matrices: The hidden matrices, see `MoETransformer.hidden_matrices`.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        config: TrainingConfig,
        by_expert: Callable[[Mapping[str, Tensor]], Values] = dict,
        matrices: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        self.config = config
        self._parameters = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
        self._by_expert = by_expert
        matrices = matrices or {}
        values = by_expert({name: parameter.detach() for name, parameter in self._parameters.items()})
        self._units: dict[str, list[Unit]] = {}
        for block, spec in BlockLayout.of(values).specs.items():
            views = [(slot, slot_view(values, slot)) for slot in spec.slots]
            self._units[block] = [
                Unit(slot, view, config.weight_decay * (view.ndim >= 2), matrices.get(slot.tensor, ()))
                for slot, view in views
            ]

    @abstractmethod
    def moment_names(self, unit: Unit) -> tuple[str, ...]:
        """Returns the names of the running averages of a tensor."""

    @abstractmethod
    def update(self, units: Sequence[Unit], grads: Sequence[Tensor], learning_rate: float) -> None:
        """Changes the values and the moments of some tensors. `begin` has been called for each of them.

        Args:
            units: The tensors.
            grads: Their gradients, in the same order.
            learning_rate: Of this step.
        """

    @classmethod
    def largest_step(
        cls, shape: Sequence[int], rows: Sequence[int], config: TrainingConfig, updates: int
    ) -> LargestStep | None:
        """Returns how far any gradients can move a tensor in one step; None if no limit is known.

        The coordinator refuses updates that are longer, so the limit must be proven.

        Args:
            shape: Of the tensor.
            rows: Numbers of rows of the separate matrices in it, as in `Unit`.
            config: The recipe's settings.
            updates: Updates of the tensor at most since its moments were zero.
        """
        return None

    @torch.no_grad()
    def step(self, learning_rate: float, idle: Collection[str] = ()) -> None:
        """Updates all blocks except `idle` ones from the parameters' gradients, and deletes the gradients."""
        grads = self._by_expert({name: p.grad for name, p in self._parameters.items() if p.grad is not None})
        units = [
            unit
            for block, found in self._units.items()
            if block not in idle
            for unit in found
            if unit.slot.tensor in grads
        ]
        for unit in units:
            self._begin(unit)
        self.update(units, [slot_view(grads, unit.slot) for unit in units], learning_rate)
        for parameter in self._parameters.values():
            parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """Returns the moments and the number of updates of every block that has been updated.

        Keys: `updates.<block>` (int64 scalar) and `<moment>.<tensor>`, for stacked experts followed by `.<expert>`. The
        moments are not copies: write or copy them before the next step.
        """
        state: dict[str, Tensor] = {}
        for block, units in self._units.items():
            for unit in units:
                if unit.moments is not None:
                    state[f"updates.{block}"] = torch.tensor(int(unit.moments[STEP]))
                    state |= {f"{name}.{unit.key}": unit.moments[name] for name in self.moment_names(unit)}
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continues from what `state` returned, possibly on another device.

        A block without state starts with zero moments. State of blocks that the model does not have is ignored.

        Raises:
            RunError: The state belongs to another model or another optimizer.
        """
        for block, units in self._units.items():
            updates = state.get(f"updates.{block}")
            for unit in units:
                unit.moments = None
                if updates is None:
                    continue
                entry: dict[str, Tensor] = {}
                for name in self.moment_names(unit):
                    value = state.get(f"{name}.{unit.key}")
                    if value is None or value.shape != unit.values.shape:
                        found = "missing" if value is None else f"of shape {tuple(value.shape)}"
                        raise RunError(
                            f"optimizer state {name}.{unit.key} is {found}, the model needs "
                            f"{tuple(unit.values.shape)}; the state belongs to another model or optimizer: delete it "
                            "to start with zero moments"
                        )
                    entry[name] = value.to(unit.values.device, torch.float32, copy=True)
                entry[STEP] = torch.tensor(float(updates), device=unit.values.device)
                unit.moments = entry

    def _begin(self, unit: Unit) -> None:
        if unit.moments is None:
            unit.moments = {name: torch.zeros_like(unit.values) for name in self.moment_names(unit)}
            unit.moments[STEP] = torch.zeros((), device=unit.values.device)


OPTIMIZERS: Registry[type[BlockOptimizer]] = Registry("training.optimizer", "trfmoe_core.training.optimizers")
"""By the name that a recipe gives; each registers itself in a file of this folder."""
