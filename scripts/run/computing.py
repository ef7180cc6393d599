"""With what a recipe trains on this machine: device, threads and number type."""

from typing import Any

from clients.settings import simulated_threads
from trfmoe_core.config import Recipe
from trfmoe_core.processors import resolve_threads
from trfmoe_core.training.device import count_devices, resolve_device, resolve_precision


def computing(recipe: Recipe) -> dict[str, Any]:
    """Returns what `auto` of the recipe's device, threads and precision means here.

    `threads` are those of `trfmoe train` and of a node on a machine like this, `simulated_threads` those of each node
    while all train at once here.

    Raises:
        ConfigError: this machine lacks the device.
    """
    training = recipe.training
    device = resolve_device(training.device)
    devices = count_devices(device, training.devices)
    precision = resolve_precision(training.precision, device, recipe.model.width)
    return {
        "device": str(device) + (f" x {devices}" if devices > 1 else ""),
        "threads": resolve_threads(training.threads, devices),
        "simulated_threads": simulated_threads(recipe),
        "precision": str(precision).removeprefix("torch."),
    }


def computing_line(found: dict[str, Any]) -> str:
    """Returns the same as one line."""
    here = f"{found['device']}, {_threads(found['threads'])}, {found['precision']}"
    return (
        f"training   on a machine like this one: {here}; in a simulation {_threads(found['simulated_threads'])} a node"
    )


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"
