"""AdamW (arXiv 1711.05101) with decoupled weight decay on matrices only."""

from collections.abc import Sequence
from typing import cast

from torch import Tensor
from torch.optim.adamw import adamw

from trfmoe_core.config.training import TrainingConfig
from trfmoe_core.training.optimizers.base import OPTIMIZERS, STEP, BlockOptimizer, Unit
from trfmoe_core.training.optimizers.largest_step import LargestStep, adamw_largest_step

MOMENTS = ("exp_avg", "exp_avg_sq")
_EPS = 1e-8


@OPTIMIZERS.register("adamw")
class BlockAdamW(BlockOptimizer):
    """AdamW for every tensor. The count of updates, which corrects the bias of the moments, is each block's own."""

    def moment_names(self, unit: Unit) -> tuple[str, ...]:
        """Returns the first and the second moment."""
        return MOMENTS

    @classmethod
    def largest_step(
        cls, shape: Sequence[int], rows: Sequence[int], config: TrainingConfig, updates: int
    ) -> LargestStep:
        """Returns the limit of every value."""
        return adamw_largest_step(config, updates)

    def update(self, units: Sequence[Unit], grads: Sequence[Tensor], learning_rate: float) -> None:
        """Changes the values and the moments of some tensors."""
        update_by_adamw(units, grads, learning_rate, self.config)


def update_by_adamw(
    units: Sequence[Unit], grads: Sequence[Tensor], learning_rate: float, config: TrainingConfig
) -> None:
    """Makes one step of AdamW, with one fused call for all tensors of equal weight decay.

    Args:
        units: The tensors, with moments.
        grads: Their gradients.
        learning_rate: Of this step.
        config: Betas.
    """
    by_decay: dict[float, list[tuple[Unit, Tensor]]] = {}
    for unit, grad in zip(units, grads, strict=True):
        by_decay.setdefault(unit.weight_decay, []).append((unit, grad))
    for weight_decay, pairs in by_decay.items():
        moments = [cast(dict[str, Tensor], unit.moments) for unit, _ in pairs]
        # The function behind torch's AdamW: the class imports torch's compiler, which takes a second every round.
        adamw(
            [unit.values for unit, _ in pairs],
            [grad for _, grad in pairs],
            exp_avgs=[entry["exp_avg"] for entry in moments],
            exp_avg_sqs=[entry["exp_avg_sq"] for entry in moments],
            max_exp_avg_sqs=[],
            state_steps=[entry[STEP] for entry in moments],
            fused=True,
            amsgrad=False,
            beta1=config.beta1,
            beta2=config.beta2,
            lr=learning_rate,
            weight_decay=weight_decay,
            eps=_EPS,
            maximize=False,
        )
