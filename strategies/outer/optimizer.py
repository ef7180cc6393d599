"""What an outer optimizer is (DiLoCo, arXiv 2311.08105), and the registry of all of them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor

from trfmoe_core.blocks import Blocks
from trfmoe_core.config import OuterConfig
from trfmoe_core.registry import Registry


class OuterOptimizer(ABC):
    """Applies voted updates to the global blocks, in place. A block that a vote kept is not touched at all.

    Args:
        config: The settings of the recipe.
        momentum: Block -> momentum of an earlier round, to go on from there.
    """

    def __init__(self, config: OuterConfig, momentum: Mapping[str, Tensor] | None = None) -> None:
        self.config = config
        self.momentum: Blocks = dict(momentum or {})

    @abstractmethod
    def step(self, blocks: Blocks, name: str, update: Tensor) -> None:
        """Moves block `name` by a voted update of the same length. What must survive goes into `momentum`."""


OUTER_OPTIMIZERS: Registry[type[OuterOptimizer]] = Registry("outer.optimizer", "strategies.outer")
"""By the name that a recipe gives; each registers itself in a file of this folder."""


def outer_optimizer(config: OuterConfig, momentum: Mapping[str, Tensor] | None = None) -> OuterOptimizer:
    """Returns the optimizer that the settings name.

    Raises:
        ConfigError: there is none of this name.
    """
    return OUTER_OPTIMIZERS.find(config.optimizer)(config, momentum)
