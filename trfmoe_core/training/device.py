"""Which devices and which number type a node trains with, and how its process is set up."""

import os
from typing import Literal

import torch

from trfmoe_core.config.training import TrainingConfig
from trfmoe_core.errors import ConfigError


def resolve_device(setting: str) -> torch.device:
    """Returns the device for `auto`, `cpu`, `cuda` or `cuda:N`; `auto` is the first CUDA device, else the CPU.

    Raises:
        ConfigError: if a CUDA device is named that this machine does not have.
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
    """Returns the type of products and activations: `auto` is bfloat16 on CUDA where it is native, else float32.

    Weights, gradients and optimizer state are float32 in any case.
    """
    if setting == "auto":
        native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float32
    return torch.bfloat16 if setting == "bfloat16" else torch.float32


def count_devices(device: torch.device, devices: int | Literal["all"]) -> int:
    """Returns how many devices of a type train together; on the CPU every process counts as one.

    Raises:
        ConfigError: if this machine has fewer.
    """
    present = torch.cuda.device_count() if device.type == "cuda" else None
    if devices == "all":
        return present or 1
    if present is not None and devices > present:
        raise ConfigError(f"training.devices: {devices}, but this machine has {present} CUDA devices; give {present}")
    return devices


def prepare_process(config: TrainingConfig, threads: int | None = None) -> None:
    """Sets the CPU threads of torch's operators in this process, and whether its kernels must be deterministic.

    On the CPU results depend on the number of threads in the last bits, unless the kernels are deterministic. Intel's
    library, which multiplies matrices there, reads its variable at the first product: prepare the process before.
    """
    torch.set_num_threads(threads or config.threads)
    if config.compile:
        torch.use_deterministic_algorithms(config.deterministic)
    else:  # The same without torch's compiler, whose import takes a second of every round.
        torch.set_deterministic_debug_mode("error" if config.deterministic else "default")
    if config.deterministic:
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        os.environ.setdefault("MKL_CBWR", "AVX2,STRICT")
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
