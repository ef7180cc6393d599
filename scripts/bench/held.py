"""What a node keeps in memory by how many of a layer's experts it holds, and the peak of whole training steps.

Needs no Flower. `trfmoe bench model` shows it.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from trfmoe_core.config import ModelConfig, TrainingConfig
from trfmoe_core.config.model import ExpertsConfig
from trfmoe_core.heap import keep_freed_memory
from trfmoe_core.model.local_experts import local_experts
from trfmoe_core.model.transformer import MoETransformer
from trfmoe_core.training.optimizer import BlockAdamW


def held_bytes(config: ModelConfig, vocab_size: int, held: int, unheld: str) -> dict[str, int]:
    """Returns the bytes of weights, gradients and moments after a step of a node that holds `held` experts a layer."""
    names = [f"layers.{layer}.experts.{e}" for layer in range(config.layers) for e in range(held)]
    experts = ExpertsConfig.model_validate({"unheld": unheld})
    model = MoETransformer(config, vocab_size, local_experts(config, experts, names))
    model.init_weights(torch.Generator().manual_seed(0))
    for buffer in model.buffers():
        if buffer.ndim == 3:
            torch.nn.init.normal_(buffer, std=config.init_std)
    optimizer = BlockAdamW(dict(model.named_parameters()), TrainingConfig(), model.by_expert)
    tokens = torch.randint(0, vocab_size, (1, config.context + 1), generator=torch.Generator().manual_seed(0))
    model(tokens[:, :-1], tokens[:, 1:]).loss.backward()
    sizes = {
        "weights": sum(t.nbytes for t in (*model.parameters(), *model.buffers())),
        "gradients": sum(p.grad.nbytes for p in model.parameters() if p.grad is not None),
    }
    optimizer.step(1e-3)
    sizes["moments"] = sum(t.nbytes for name, t in optimizer.state().items() if name.startswith("exp_avg"))
    return {**sizes, "total": sum(sizes.values())}


def bench_held(config: ModelConfig, vocab_size: int) -> list[dict[str, Any]]:
    """Returns a row for all, half and a quarter of the experts, absent and frozen ones apart."""
    rows = []
    for unheld in ("absent", "freeze"):
        for held in (config.experts, config.experts // 2, config.experts // 4):
            rows.append(
                {
                    "unheld": unheld,
                    "held": held,
                    "of": config.experts,
                    **{
                        f"{kind}_mb": round(size / 1e6, 1)
                        for kind, size in held_bytes(config, vocab_size, held, unheld).items()
                    },
                }
            )
    return rows


def peak_mb(name: str) -> float | None:
    """Returns by how much a process grows in its first training steps of one kind of model, in MB; Linux only."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    done = subprocess.run(
        [sys.executable, "-m", "scripts.bench.held", name], capture_output=True, text=True, check=True
    )
    return float(json.loads(done.stdout))


def main() -> None:
    """Prints the growth of this process over three steps."""
    from scripts.bench.model import CPU_BATCH, CPU_CONFIG, CPU_VOCAB, cpu_step

    torch.set_num_threads(1)
    keep_freed_memory()
    tokens = torch.randint(0, CPU_VOCAB, (CPU_BATCH, CPU_CONFIG.context + 1))
    # What the library itself takes when it first computes is not the model's.
    torch.ones(64, 64) @ torch.ones(64, 64)
    step = cpu_step(sys.argv[1], tokens, compiled=False)
    before = _status_kb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    for _ in range(3):
        step()
    sys.stdout.write(json.dumps(round((_status_kb("VmHWM") - before) / 1000, 1)) + "\n")


def _status_kb(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


if __name__ == "__main__":
    main()
