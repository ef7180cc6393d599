"""How much of this machine each simulated node gets."""

import os
import shutil
import subprocess

from clients.settings import simulated_threads
from trfmoe_core.config import Recipe
from trfmoe_core.processors import usable_processors


def simulation_resources(recipe: Recipe) -> dict[str, float]:
    """Returns Flower's federation settings: CPUs and GPUs a node, and for Ray at most as many as the nodes can use.

    Ray starts one actor, which holds a whole Python with torch, for every share of the CPUs: so it is told the nodes'
    number of CPUs, not the machine's.
    """
    cores = usable_processors()
    gpus = count_gpus() if _wants_gpu(recipe) else 0
    asked = [node.devices or recipe.training.devices for node in recipe.nodes] or [recipe.training.devices]
    devices = max(max(1, gpus) if count == "all" else count for count in asked)
    threads = max([simulated_threads(recipe), *(node.threads or 1 for node in recipe.nodes)])
    cpus = min(threads * devices, cores)
    actors = max(1, min(recipe.federation_size, cores // cpus))
    if gpus and devices > 1:
        actors = max(1, min(actors, gpus // devices))
        share = float(min(devices, gpus))
    else:
        share = 0.0 if gpus == 0 else min(1.0, int(1000 * gpus / actors) / 1000)
    settings: dict[str, float] = {"client-resources-num-cpus": cpus, "init-args-num-cpus": cpus * actors}
    return {**settings, "client-resources-num-gpus": share, "init-args-num-gpus": gpus}


def count_gpus() -> int:
    """Returns the number of NVIDIA GPUs that this process may use, without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([entry for entry in visible.split(",") if entry.strip() not in ("", "-1")])
    program = shutil.which("nvidia-smi")
    if program is None:
        return 0
    try:
        listed = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines()) if listed.returncode == 0 else 0


def _wants_gpu(recipe: Recipe) -> bool:
    devices = {node.device or recipe.training.device for node in recipe.nodes} or {recipe.training.device}
    return devices != {"cpu"}
