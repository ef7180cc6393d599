"""AdamW over the blocks of a model: every expert has its own moments and its own count of updates.

A step skips the experts that received no token: neither weight decay nor old momentum changes them, and their count of
updates, which corrects the bias of the moments, stays.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from trfmoe_core.blocks import BlockLayout, Slot, Values, slot_view
from trfmoe_core.config.training import TrainingConfig
from trfmoe_core.errors import RunError

_MOMENTS = ("exp_avg", "exp_avg_sq")
_EPS = 1e-8


@dataclass
class _Unit:
    """One tensor of one block: a view of the model's weights, with its moments and count after the first update."""

    slot: Slot
    values: Tensor
    weight_decay: float
    moments: dict[str, Tensor] | None = None

    @property
    def key(self) -> str:
        return self.slot.tensor if self.slot.expert is None else f"{self.slot.tensor}.{self.slot.expert}"

    def begin(self) -> dict[str, Tensor]:
        """Returns the moments and the count of updates; before the first update, zeros."""
        if self.moments is None:
            self.moments = {name: torch.zeros_like(self.values) for name in _MOMENTS}
            self.moments["step"] = torch.zeros((), device=self.values.device)
        return self.moments


class BlockAdamW:
    """AdamW (arXiv 1711.05101) with decoupled weight decay on matrices only.

    Args:
        parameters: The model's, by name. Their memory must not move; those without gradient are never changed.
        config: Betas and weight decay.
        by_expert: Splits stacks by the experts' numbers in the whole model, see `MoETransformer.by_expert`. By default
            a stack holds all experts.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        config: TrainingConfig,
        by_expert: Callable[[Mapping[str, Tensor]], Values] = dict,
    ) -> None:
        self._parameters = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
        self._by_expert = by_expert
        self._betas = (config.beta1, config.beta2)
        values = by_expert({name: parameter.detach() for name, parameter in self._parameters.items()})
        self._units: dict[str, list[_Unit]] = {}
        for block, spec in BlockLayout.of(values).specs.items():
            views = [(slot, slot_view(values, slot)) for slot in spec.slots]
            self._units[block] = [_Unit(slot, view, config.weight_decay * (view.ndim >= 2)) for slot, view in views]

    @torch.no_grad()
    def step(self, learning_rate: float, idle: Collection[str] = ()) -> None:
        """Updates all blocks except `idle` ones from the parameters' gradients, and deletes the gradients."""
        grads = self._by_expert({name: p.grad for name, p in self._parameters.items() if p.grad is not None})
        by_decay: dict[float, list[_Unit]] = {}
        for block, units in self._units.items():
            for unit in units:
                if unit.slot.tensor in grads and block not in idle:
                    by_decay.setdefault(unit.weight_decay, []).append(unit)
        for weight_decay, units in by_decay.items():
            moments = [unit.begin() for unit in units]
            # The function behind torch's AdamW: the class imports torch's compiler, which takes a second every round.
            adamw(
                [unit.values for unit in units],
                [slot_view(grads, unit.slot) for unit in units],
                exp_avgs=[entry["exp_avg"] for entry in moments],
                exp_avg_sqs=[entry["exp_avg_sq"] for entry in moments],
                max_exp_avg_sqs=[],
                state_steps=[entry["step"] for entry in moments],
                fused=True,
                amsgrad=False,
                beta1=self._betas[0],
                beta2=self._betas[1],
                lr=learning_rate,
                weight_decay=weight_decay,
                eps=_EPS,
                maximize=False,
            )
        for parameter in self._parameters.values():
            parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """Returns the moments and the number of updates of every block that has been updated.

        Keys: `updates.<block>` (int64 scalar), `exp_avg.<tensor>` and `exp_avg_sq.<tensor>`; for stacked experts
        followed by `.<expert>`. The moments are not copies: write or copy them before the next step.
        """
        state: dict[str, Tensor] = {}
        for block, units in self._units.items():
            for unit in units:
                if unit.moments is not None:
                    state[f"updates.{block}"] = torch.tensor(int(unit.moments["step"]))
                    state |= {f"{moment}.{unit.key}": unit.moments[moment] for moment in _MOMENTS}
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continues from what `state` returned, possibly on another device.

        A block without state starts with zero moments. State of blocks that the model does not have is ignored.

        Raises:
            RunError: If the state belongs to another model.
        """
        for block, units in self._units.items():
            updates = state.get(f"updates.{block}")
            for unit in units:
                unit.moments = None
                if updates is None:
                    continue
                entry: dict[str, Tensor] = {}
                for moment in _MOMENTS:
                    value = state.get(f"{moment}.{unit.key}")
                    if value is None or value.shape != unit.values.shape:
                        found = "missing" if value is None else f"of shape {tuple(value.shape)}"
                        raise RunError(
                            f"optimizer state {moment}.{unit.key} is {found}, the model needs "
                            f"{tuple(unit.values.shape)}; the state belongs to another model: delete it to start "
                            "with zero moments"
                        )
                    entry[moment] = value.to(unit.values.device, torch.float32, copy=True)
                entry["step"] = torch.tensor(float(updates), device=unit.values.device)
                unit.moments = entry
