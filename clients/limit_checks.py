"""The limits that a node's owner sets for runs, rounds and hours.

They are checked before any work begins, and the hours also while it is done.
"""

import datetime
import math
from collections.abc import Collection

import torch

from clients.refusals import RefusedError
from strategies.exchange.refusals import LARGEST, Code, Refusal
from trfmoe_core.blocks import TRUNK
from trfmoe_core.config import NodeSettings, Recipe
from trfmoe_core.counts import counted
from trfmoe_core.model.local_experts import local_experts
from trfmoe_core.model.transformer import frozen_shapes, parameter_shapes
from trfmoe_core.processors import usable_processors

USUAL_SHARE = 0.05
"""Of a node's text, this share at least is held out by an honest recipe."""

BYTES_A_PARAMETER = 24
"""Weights, what arrived, gradients, two moments and the update, all in float32; activations come on top."""

BYTES_A_FROZEN_PARAMETER = 8
"""The weight and what arrived or was read, in float32."""


class OverLimitsError(RefusedError):
    """The owner of this node does not grant what was asked."""

    def __init__(self, code: Code, text: str, asked: int | None = None, granted: int | None = None) -> None:
        super().__init__(Refusal(code=code, asked=_bounded(asked), granted=_bounded(granted)), text)


def check_hours(settings: NodeSettings) -> None:
    """Refuses all work outside the owner's hours.

    Raises:
        OverLimitsError: it is not the hour for it.
    """
    if outside_hours(settings):
        raise hours_error(settings)


def hours_error(settings: NodeSettings) -> OverLimitsError:
    """Returns the refusal of work outside the owner's hours."""
    return OverLimitsError(
        "limits-hours",
        f"abstains: the owner of this node grants {settings.limits.hours} (limits.hours), and it is another "
        "hour by this machine's clock",
    )


def outside_hours(settings: NodeSettings) -> bool:
    """Returns True if the owner grants no work at this hour."""
    hours = settings.limits.hours
    return hours is not None and not _open(hours, datetime.datetime.now().time())


def within_limits(settings: NodeSettings, recipe: Recipe) -> NodeSettings:
    """Returns the settings with the data that this run may use, or refuses the run.

    Raises:
        OverLimitsError: the run asks for more than the owner grants.
    """
    limits = settings.limits
    held = -(-recipe.experts.replication * recipe.model.layers * recipe.model.experts // recipe.federation_size)
    if limits.experts is not None and held > limits.experts:
        text = f"with {counted(recipe.federation_size, 'node')} this run puts {counted(held, 'expert')} on each"
        raise _beyond("limits-experts", text, held, "experts", limits.experts)
    if limits.data_sets is None:
        return settings
    granted = limits.data_sets.get(recipe.name)
    if granted is None:
        names = ", ".join(sorted(limits.data_sets)) or "none"
        raise OverLimitsError(
            "limits-data-sets",
            f"the owner of this node grants no data to a run called {recipe.name} (limits.data_sets: {names})",
        )
    return settings.model_copy(update={"data": granted})


def check_memory(settings: NodeSettings, recipe: Recipe, vocab_size: int, held: Collection[str] | None = None) -> None:
    """Refuses a model whose training cannot fit into the memory that the owner grants.

    Args:
        settings: The node's own.
        recipe: The run.
        vocab_size: Number of token ids.
        held: As for `num_parameters`.

    Raises:
        OverLimitsError: with both sizes.
    """
    granted = settings.limits.memory_mb
    if granted is None:
        return
    frozen = frozen_shapes(recipe.model, vocab_size, recipe.training.freeze).values()
    needed_bytes = num_parameters(recipe, vocab_size, held) * BYTES_A_PARAMETER
    needed_bytes += sum(shape.numel() for shape in frozen) * BYTES_A_FROZEN_PARAMETER
    needed = math.ceil(needed_bytes / (1 << 20))
    if needed > granted:
        raise OverLimitsError(
            "limits-memory",
            f"training this run's model takes at least {needed} MB on this node, and its owner grants {granted} MB "
            "(limits.memory_mb)",
            needed,
            granted,
        )


def num_parameters(recipe: Recipe, vocab_size: int, held: Collection[str] | None = None) -> int:
    """Returns how many trained parameters the run's model has on one node.

    Args:
        recipe: The run.
        vocab_size: Number of token ids.
        held: The blocks that a request puts on this node. None: before any request, a fair share by the recipe's
            number of nodes.
    """
    share, local = 1.0, None
    if recipe.experts.unheld == "absent" and held is not None:
        local = local_experts(recipe.model, recipe.experts, set(held))
    elif recipe.experts.unheld == "absent":
        share = min(1.0, recipe.experts.replication / recipe.federation_size)
    shapes = parameter_shapes(recipe.model, vocab_size, local, recipe.training.freeze)
    return math.ceil(sum(shape.numel() * (share if ".experts." in name else 1.0) for name, shape in shapes.items()))


def check_size(settings: NodeSettings, recipe: Recipe, steps: int, devices: int) -> None:
    """Refuses a round so small that its update shows plainly which text it was trained on.

    Args:
        settings: The node's own.
        recipe: The run.
        steps: Optimizer steps of the round; 0 is no training, and no update is sent.
        devices: That train together on this node.

    Raises:
        OverLimitsError: fewer steps, sequences a step, or tokens than the owner wants.
    """
    if steps == 0:
        return
    limits = settings.limits
    batch = recipe.training.batch_size * recipe.training.accumulation * devices
    tokens = steps * batch * recipe.model.context
    checks: list[tuple[Code, str, int, int, str]] = [
        ("limits-steps", "min_steps", steps, limits.min_steps, "a round has {} local steps"),
        ("limits-batch", "min_batch", batch, limits.min_batch, "a step has {} sequences"),
        ("limits-tokens", "min_tokens", tokens, limits.min_tokens, "a round has {} tokens"),
    ]
    for code, key, asked, least, what in checks:
        if asked < least:
            text = f"{what.format(asked)}, and the owner of this node wants at least {least} (limits.{key})"
            raise OverLimitsError(code, text, asked, least)


def check_text(settings: NodeSettings, tokens: int, text_tokens: int) -> None:
    """Refuses to train on so little text that a round reads the same sentences over and over.

    An owner with little text is not refused for that: the limit is for a recipe that leaves little of much.

    Args:
        settings: The node's own.
        tokens: Of its text that the recipe's split leaves to train on.
        text_tokens: All tokens of the node's text.

    Raises:
        OverLimitsError: fewer than the owner wants in a round.
    """
    least = settings.limits.min_tokens
    if tokens < least <= text_tokens / 2:
        text = (
            f"the recipe's split leaves {tokens} tokens to train on, and the owner of this node wants at least {least} "
            "(limits.min_tokens); lower data.held_out or data.piece_bytes, or add text"
        )
        raise OverLimitsError("limits-text", text, tokens, least)


def check_evaluation(settings: NodeSettings, tokens: int, text_tokens: int) -> None:
    """Refuses to tell a loss over so little text that it speaks of single sentences.

    An owner with little text is not refused for that: the limit is for a recipe that asks for little of much.

    Args:
        settings: The node's own.
        tokens: That the loss is over: as few as the recipe asks for, or as its split of the text leaves.
        text_tokens: All tokens of the node's text.

    Raises:
        OverLimitsError: fewer than the owner wants.
    """
    least = settings.limits.min_evaluation_tokens
    if tokens < least <= USUAL_SHARE * text_tokens:
        text = (
            f"an evaluation is over {tokens} held-out tokens, and the owner of this node wants at least {least} "
            "(limits.min_evaluation_tokens)"
        )
        raise OverLimitsError("limits-evaluation", text, tokens, least)


def within_machine(recipe: Recipe) -> Recipe:
    """Returns the recipe with no more threads and processes than this machine has processors for."""
    cores = usable_processors()
    data = recipe.data.model_copy(
        update={
            "processes": min(recipe.data.processes or cores, cores),
            "loader_threads": min(recipe.data.loader_threads, cores),
        }
    )
    threads = recipe.training.threads
    training = recipe.training.model_copy(update={"threads": threads if threads == "auto" else min(threads, cores)})
    return recipe.model_copy(update={"data": data, "training": training})


def check_devices(settings: NodeSettings, device: torch.device, devices: int) -> None:
    """Refuses to train in more processes than this machine has processors, unless its owner has set the number.

    Args:
        settings: The node's own.
        device: Their type. CUDA devices are counted elsewhere.
        devices: That the recipe, or the owner, wants.

    Raises:
        RefusedError: the recipe wants more.
    """
    cores = usable_processors()
    if device.type == "cpu" and settings.devices is None and devices > cores:
        raise RefusedError(
            Refusal(code="device"),
            f"training.devices: {devices}, but this machine has {cores} processors; lower it, or set devices in the "
            "node's settings",
        )


def check_round(settings: NodeSettings, held: list[str]) -> None:
    """Refuses a round that puts more experts on this node than its owner grants.

    Args:
        settings: The node's own.
        held: The blocks that the coordinator has given to this node.

    Raises:
        OverLimitsError: more experts than granted.
    """
    limits = settings.limits
    experts = sum(name != TRUNK for name in held)
    if limits.experts is not None and experts > limits.experts:
        text = f"abstains: {counted(experts, 'expert was', 'experts were')} put on this node"
        raise _beyond("limits-experts", text, experts, "experts", limits.experts)


def _bounded(figure: int | None) -> int | None:
    return None if figure is None else min(figure, LARGEST)


def _beyond(code: Code, text: str, asked: int, key: str, granted: int) -> OverLimitsError:
    return OverLimitsError(code, f"{text}, and the owner of this node grants {granted} (limits.{key})", asked, granted)


def _open(hours: str, now: datetime.time) -> bool:
    start, end = (datetime.time.fromisoformat(part) for part in hours.split("-"))
    return start <= now < end if start <= end else now >= start or now < end
