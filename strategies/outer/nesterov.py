"""`outer.optimizer: nesterov`: takes the update for a negative gradient, and makes a step with Nesterov momentum."""

from torch import Tensor

from strategies.outer.optimizer import OUTER_OPTIMIZERS, OuterOptimizer
from trfmoe_core.blocks import Blocks


@OUTER_OPTIMIZERS.register("nesterov")
class Nesterov(OuterOptimizer):
    """Nesterov momentum, with one vector a block."""

    def step(self, blocks: Blocks, name: str, update: Tensor) -> None:
        """Adds the update to the momentum, and both to the block."""
        momentum = self.config.momentum
        velocity = self.momentum.get(name)
        if velocity is None:
            velocity = self.momentum[name] = update.clone()
        else:
            velocity.mul_(momentum).add_(update)
        blocks[name].add_(update.add(velocity, alpha=momentum), alpha=self.config.learning_rate)
