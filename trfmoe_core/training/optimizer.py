"""AdamW over the blocks of a model: every expert has moments and a count of updates of its own.

An expert that no token reached in a step rests: neither weight decay nor old momentum moves it, and its count of
updates, which corrects the bias of the moments, stands still.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trfmoe_core.blocks import BlockLayout, Slot, Values, slot_view
from trfmoe_core.config.training import TrainingConfig
from trfmoe_core.errors import RunError

_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class _Unit:
    """One tensor of one block; `handle` shares the model's memory, so that torch's optimizer updates it in place."""

    slot: Slot
    handle: nn.Parameter

    @property
    def key(self) -> str:
        return self.slot.tensor if self.slot.expert is None else f"{self.slot.tensor}.{self.slot.expert}"


class BlockAdamW:
    """AdamW (arXiv 1711.05101) with decoupled weight decay on matrices only.

    Args:
        parameters: The model's, by name, where they will stay; those without gradient are left alone.
        config: Rates and decay.
        by_expert: Takes stacks apart by the numbers that experts have in the whole model, `MoETransformer.by_expert`;
            by default a stack holds all of them.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        config: TrainingConfig,
        by_expert: Callable[[Mapping[str, Tensor]], Values] = dict,
    ) -> None:
        self._parameters = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
        self._by_expert = by_expert
        values = by_expert(self._parameters)
        self._units = {
            block: [_Unit(slot, nn.Parameter(slot_view(values, slot))) for slot in spec.slots]
            for block, spec in BlockLayout.of(values).specs.items()
        }
        handles = [unit.handle for units in self._units.values() for unit in units]
        groups = [
            {"params": [handle for handle in handles if handle.ndim >= 2], "weight_decay": config.weight_decay},
            {"params": [handle for handle in handles if handle.ndim < 2], "weight_decay": 0.0},
        ]
        self._adamw = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=config.learning_rate,
            betas=(config.beta1, config.beta2),
            fused=True,
        )

    @torch.no_grad()
    def step(self, learning_rate: float, idle: Collection[str] = ()) -> None:
        """Updates every block but the idle ones from the parameters' gradients, and drops the gradients."""
        grads = self._by_expert({name: p.grad for name, p in self._parameters.items() if p.grad is not None})
        for block, units in self._units.items():
            for unit in units:
                if unit.slot.tensor in grads and block not in idle:
                    unit.handle.grad = slot_view(grads, unit.slot)
        for group in self._adamw.param_groups:
            group["lr"] = learning_rate
        self._adamw.step()
        self._adamw.zero_grad(set_to_none=True)
        for parameter in self._parameters.values():
            parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """Returns the moments and the number of updates of every block that was updated yet.

        Keys: `updates.<block>` (int64 scalar), `exp_avg.<tensor>` and `exp_avg_sq.<tensor>`, for a tensor of stacked
        experts followed by `.<expert>`. The tensors are the live ones: write or copy them before training goes on.
        """
        state: dict[str, Tensor] = {}
        for block, units in self._units.items():
            for unit in units:
                if entry := self._adamw.state.get(unit.handle):
                    state[f"updates.{block}"] = torch.tensor(int(entry["step"]))
                    state |= {f"{moment}.{unit.key}": entry[moment] for moment in _MOMENTS}
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continues from what `state` returned, possibly on another device.

        A block without state begins with fresh moments; state of blocks that the model does not have is dropped.

        Raises:
            RunError: if the state belongs to another model.
        """
        self._adamw.state.clear()
        for block, units in self._units.items():
            if (updates := state.get(f"updates.{block}")) is None:
                continue
            for unit in units:
                entry: dict[str, Tensor] = {}
                for moment in _MOMENTS:
                    value = state.get(f"{moment}.{unit.key}")
                    if value is None or value.shape != unit.handle.shape:
                        found = "missing" if value is None else f"of shape {tuple(value.shape)}"
                        raise RunError(
                            f"optimizer state {moment}.{unit.key} is {found}, the model needs "
                            f"{tuple(unit.handle.shape)}; the state belongs to another model: delete it to begin "
                            "with fresh moments"
                        )
                    entry[moment] = value.to(unit.handle.device, torch.float32, copy=True)
                entry["step"] = torch.tensor(float(updates), device=unit.handle.device)
                self._adamw.state[unit.handle] = entry
