"""A node owner's limits: what a run may ask of this node, what its round may, and when."""

import datetime
import math

from trfmoe_core.blocks import TRUNK
from trfmoe_core.config import NodeSettings, Recipe
from trfmoe_core.errors import TRFMoEError
from trfmoe_core.model.transformer import parameter_shapes

BYTES_A_PARAMETER = 24
"""Weights, what arrived, gradients, two moments and the update, all in float32; activations come on top."""


class OverLimitsError(TRFMoEError):
    """The owner of this node does not grant what was asked."""


def within_limits(settings: NodeSettings, recipe: Recipe) -> NodeSettings:
    """Returns the settings with the data that this run may use, or refuses the run.

    Raises:
        OverLimitsError: the run asks for more than the owner grants.
    """
    limits = settings.limits
    held = -(-recipe.experts.replication * recipe.model.layers * recipe.model.experts // recipe.federation_size)
    if limits.experts is not None and held > limits.experts:
        raise OverLimitsError(
            f"with {recipe.federation_size} nodes this run puts {held} experts on each, and the owner of this node "
            f"grants {limits.experts} (limits.experts)"
        )
    if limits.data_sets is None:
        return settings
    granted = limits.data_sets.get(recipe.name)
    if granted is None:
        names = ", ".join(sorted(limits.data_sets)) or "none"
        raise OverLimitsError(
            f"the owner of this node grants no data to a run called {recipe.name} (limits.data_sets: {names})"
        )
    return settings.model_copy(update={"data": granted})


def check_memory(settings: NodeSettings, recipe: Recipe, vocab_size: int) -> None:
    """Refuses a model whose training cannot fit into the memory that the owner grants.

    Raises:
        OverLimitsError: with both sizes.
    """
    granted = settings.limits.memory_mb
    if granted is None:
        return
    share = min(1.0, recipe.experts.replication / recipe.federation_size) if recipe.experts.unheld == "absent" else 1.0
    shapes = parameter_shapes(recipe.model, vocab_size)
    parameters = sum(shape.numel() * (share if ".experts." in name else 1.0) for name, shape in shapes.items())
    needed = math.ceil(parameters * BYTES_A_PARAMETER / (1 << 20))
    if needed > granted:
        raise OverLimitsError(
            f"training this run's model takes at least {needed} MB on this node, and its owner grants {granted} MB "
            "(limits.memory_mb)"
        )


def check_round(settings: NodeSettings, held: list[str], now: datetime.datetime) -> None:
    """Sits a round out that the owner does not grant.

    Args:
        settings: The node's own.
        held: The blocks that the coordinator has given to this node.
        now: This machine's time.

    Raises:
        OverLimitsError: more experts than granted, or not the hour for it.
    """
    limits = settings.limits
    experts = sum(name != TRUNK for name in held)
    if limits.experts is not None and experts > limits.experts:
        raise OverLimitsError(
            f"abstains: {experts} experts were put on this node, and its owner grants {limits.experts} (limits.experts)"
        )
    if limits.hours is not None and not _open(limits.hours, now.time()):
        raise OverLimitsError(
            f"abstains: it is {now:%H:%M} here, and the owner of this node grants {limits.hours} (limits.hours)"
        )


def _open(hours: str, now: datetime.time) -> bool:
    start, end = (datetime.time.fromisoformat(part) for part in hours.split("-"))
    return start <= now < end if start <= end else now >= start or now < end
