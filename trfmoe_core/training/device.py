"""The devices and the number type that a node trains with, and the settings of its process."""

import os
from functools import cache
from typing import Literal

import torch

from trfmoe_core.config.training import TrainingConfig
from trfmoe_core.errors import ConfigError
from trfmoe_core.malloc import keep_freed_memory
from trfmoe_core.processors import resolve_threads

BFLOAT16_WIDTH = 64
"""From this width on a training step is faster in bfloat16 than in float32 on a CPU that has instructions for it."""


def resolve_device(setting: str) -> torch.device:
    """Returns the device for `auto`, `cpu`, `cuda` or `cuda:N`; `auto` is the first CUDA device, else the CPU.

    Raises:
        ConfigError: If the setting names a CUDA device that this machine does not have.
    """
    num_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if setting == "auto":
        return torch.device("cuda", 0) if num_devices else torch.device("cpu")
    if setting == "cpu":
        return torch.device("cpu")
    index = int(setting.partition(":")[2] or 0)
    if index >= num_devices:
        have = f"it has {num_devices}" if num_devices else "it has none that torch can use"
        raise ConfigError(f"training.device: {setting} is not on this machine ({have}); use auto or cpu")
    return torch.device("cuda", index)


def resolve_precision(setting: Literal["auto", "float32", "bfloat16"], device: torch.device, width: int) -> torch.dtype:
    """Returns the type of products and activations. Weights, gradients and optimizer state are always float32.

    `auto` is bfloat16 on CUDA devices that compute in it, and on CPUs with instructions for it if the model is wide
    enough to gain from them. It does not measure: a run that goes on must get the type with which it began.

    Args:
        setting: `training.precision`.
        device: Where it is computed.
        width: The model's.
    """
    if setting == "auto":
        if device.type == "cuda":
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            native = width >= BFLOAT16_WIDTH and cpu_multiplies_bfloat16()
        return torch.bfloat16 if native else torch.float32
    return torch.bfloat16 if setting == "bfloat16" else torch.float32


@cache
def cpu_multiplies_bfloat16() -> bool:
    """Returns whether this processor has instructions for products in bfloat16, and torch a library that uses them."""
    found = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    library = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return library and any(supported() for supported in found if supported)


def device_text(device: torch.device, devices: int, precision: torch.dtype) -> str:
    """Returns with what this process trains, such as `cpu, 8 threads, bfloat16` or `cuda:0 x 2, bfloat16`."""
    count = f" x {devices}" if devices > 1 else ""
    threads = torch.get_num_threads()
    cores = f", {threads} thread{'s' * (threads > 1)}" if device.type == "cpu" else ""
    return f"{device}{count}{cores}, {str(precision).removeprefix('torch.')}"


def count_devices(device: torch.device, devices: int | Literal["all"]) -> int:
    """Returns how many devices of a type train together; on the CPU every process counts as one device.

    Raises:
        ConfigError: If this machine has fewer.
    """
    present = torch.cuda.device_count() if device.type == "cuda" else None
    if devices == "all":
        return present or 1
    if present is not None and devices > present:
        raise ConfigError(f"training.devices: {devices}, but this machine has {present} CUDA devices; give {present}")
    return devices


def prepare_process(config: TrainingConfig, threads: int | None = None, processes: int = 1) -> None:
    """Prepares this process for training: CPU threads, deterministic kernels, and the C library's use of memory.

    Call it before the first matrix product: Intel's MKL reads its environment variable then. On the CPU the last bits
    of a result depend on the number of threads unless the kernels are deterministic.

    Args:
        config: Of the recipe.
        threads: A node's own setting, which goes before the recipe's.
        processes: That train at once on this machine, and share its cores.
    """
    keep_freed_memory()
    torch.set_num_threads(resolve_threads(threads or config.threads, processes))
    if config.compile:
        torch.use_deterministic_algorithms(config.deterministic)
    else:  # Does the same without importing torch's compiler, which takes a second in every round.
        torch.set_deterministic_debug_mode("error" if config.deterministic else "default")
    if config.deterministic:
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        os.environ.setdefault("MKL_CBWR", "AVX2,STRICT")
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
