"""The devices and the number type that a node trains with, and the settings of its process."""

import os
from typing import Literal

import torch

from trfmoe_core.config.training import TrainingConfig
from trfmoe_core.errors import ConfigError
from trfmoe_core.malloc import keep_freed_memory


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


def resolve_precision(setting: Literal["auto", "float32", "bfloat16"], device: torch.device) -> torch.dtype:
    """Returns the type of products and activations; `auto` is bfloat16 on CUDA devices that compute in it.

    Weights, gradients and optimizer state are always float32.
    """
    if setting == "auto":
        native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float32
    return torch.bfloat16 if setting == "bfloat16" else torch.float32


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


def prepare_process(config: TrainingConfig, threads: int | None = None) -> None:
    """Prepares this process for training: CPU threads, deterministic kernels, and the C library's use of memory.

    Call it before the first matrix product: Intel's MKL reads its environment variable then. On the CPU the last bits
    of a result depend on the number of threads unless the kernels are deterministic.
    """
    keep_freed_memory()
    torch.set_num_threads(threads or config.threads)
    if config.compile:
        torch.use_deterministic_algorithms(config.deterministic)
    else:  # Does the same without importing torch's compiler, which takes a second in every round.
        torch.set_deterministic_debug_mode("error" if config.deterministic else "default")
    if config.deterministic:
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        os.environ.setdefault("MKL_CBWR", "AVX2,STRICT")
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
