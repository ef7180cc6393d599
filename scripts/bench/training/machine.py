"""What the machine of a benchmark has: its processor, how fast it multiplies, and the least time of a training step."""

import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scripts.bench.training.steps import active_parameters
from trfmoe_core.config import ModelConfig
from trfmoe_core.model.products import ONEDNN, onednn_product
from trfmoe_core.processors import usable_cores, usable_processors
from trfmoe_core.training.device import cpu_multiplies_bfloat16

TYPES = (torch.float32, torch.bfloat16)
_SIDE = 1024
_INSTRUCTIONS = {"avx512_bf16": "_is_avx512_bf16_supported", "amx": "_is_amx_tile_supported"}


def processor_name() -> str:
    """Returns the processor's name on Linux, and its family elsewhere."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def machine() -> dict[str, Any]:
    """Returns what the machine has, and the GFLOP/s of one thread's products, best of ten, by number type."""
    found = {name: getattr(torch.cpu, asked, lambda: False)() for name, asked in _INSTRUCTIONS.items()}
    return {
        "processor": processor_name(),
        "cores": usable_cores(),
        "processors": usable_processors(),
        "onednn_float32": ONEDNN,
        **found,
        "auto_bfloat16": cpu_multiplies_bfloat16(),
        "gflops": {name_of(dtype): round(peak_gflops(dtype), 1) for dtype in TYPES},
    }


def name_of(dtype: torch.dtype) -> str:
    """Returns `float32` or `bfloat16`."""
    return str(dtype).removeprefix("torch.")


def peak_gflops(dtype: torch.dtype) -> float:
    """Returns the processor-time rate of square products of 1,024, by the library that training takes."""
    x, w = torch.randn(_SIDE, _SIDE, dtype=dtype), torch.randn(_SIDE, _SIDE, dtype=dtype)

    def product() -> Tensor:
        return onednn_product(x, w) if ONEDNN and dtype == torch.float32 else x.mm(w.T)

    product()
    return 2 * _SIDE**3 / min(_seconds(product) for _ in range(10)) / 1e9


def floor_ms(config: ModelConfig, vocab_size: int, tokens: int, gflops: float) -> float:
    """Returns the least processor time of a training step, in milliseconds.

    It is that of all products of forward and backward at the measured rate, and of one pass of torch's fused AdamW over
    all weights. Attention's own products, half of them masked, are left out.
    """
    products_ms = 6 * active_parameters(config, vocab_size) * tokens / gflops / 1e6
    return products_ms + adamw_ms(all_parameters(config, vocab_size))


def all_parameters(config: ModelConfig, vocab_size: int) -> int:
    """Returns the number of weights that the optimizer changes, but for norms."""
    idle = (config.experts - config.top_k) * 3 * config.width * config.expert_width * config.layers
    return active_parameters(config, vocab_size) + idle + vocab_size * config.width


def adamw_ms(parameters: int) -> float:
    """Returns the processor time of one step of torch's fused AdamW over so many weights in one tensor."""
    weights = torch.zeros(parameters, requires_grad=True)
    weights.grad = torch.ones(parameters)
    optimizer = torch.optim.AdamW([weights], fused=True)
    optimizer.step()
    return 1000 * min(_seconds(optimizer.step) for _ in range(5))


def say(line: str) -> None:
    """Writes a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _seconds(work: Any) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started
