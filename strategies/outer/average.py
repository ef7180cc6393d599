"""`outer.optimizer: average`: adds the update times the learning rate; with a rate of 1 that is federated averaging."""

from torch import Tensor

from strategies.outer.optimizer import OUTER_OPTIMIZERS, OuterOptimizer
from trfmoe_core.blocks import Blocks


@OUTER_OPTIMIZERS.register("average")
class Average(OuterOptimizer):
    """Federated averaging, with a learning rate."""

    def step(self, blocks: Blocks, name: str, update: Tensor) -> None:
        """Adds the update."""
        blocks[name].add_(update, alpha=self.config.learning_rate)
