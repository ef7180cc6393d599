"""The outer optimizer: what the coordinator does with a voted update (DiLoCo, arXiv 2311.08105)."""

from collections.abc import Mapping

from torch import Tensor

from trfmoe_core.blocks import Blocks
from trfmoe_core.config import OuterConfig


class OuterOptimizer:
    """Applies voted updates to the global blocks, in place.

    `average` adds the update times the learning rate; with a rate of 1 that is federated averaging. `nesterov` treats
    the update as a negative gradient and takes a Nesterov step, with one momentum vector a block. A block that a vote
    kept has neither its values nor its momentum touched.
    """

    def __init__(self, config: OuterConfig, momentum: Mapping[str, Tensor] | None = None) -> None:
        self.config = config
        self.momentum: Blocks = dict(momentum or {})

    def step(self, blocks: Blocks, name: str, update: Tensor) -> None:
        """Moves block `name` by a voted update of the same length."""
        config = self.config
        if config.optimizer == "average":
            blocks[name].add_(update, alpha=config.learning_rate)
            return
        velocity = self.momentum.get(name)
        if velocity is None:
            velocity = self.momentum[name] = update.clone()
        else:
            velocity.mul_(config.momentum).add_(update)
        blocks[name].add_(update.add(velocity, alpha=config.momentum), alpha=config.learning_rate)
