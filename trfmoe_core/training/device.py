"""Which device and which number type a node trains with."""

from typing import Literal

import torch

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


def set_threads(threads: int) -> None:
    """Sets the CPU threads of torch's operators in this process; results depend on it in the last bits."""
    torch.set_num_threads(threads)
