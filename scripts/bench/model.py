"""`trfmoe bench model`: how long training steps take. Without Flower: `python -m scripts.bench.child` runs `main`.

CPU: process CPU time of one thread, in float32 and bfloat16, against transformers' Mixtral and against a dense model of
equal active work. CUDA: `scripts/bench/training/cuda.py`. Ratios are speeds: above 1 we are faster.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from scripts.bench import child
from scripts.bench.measure import growth_mb
from scripts.bench.training.cuda import bench_cuda
from scripts.bench.training.held import bench_held
from scripts.bench.training.machine import TYPES, floor_ms, machine, name_of, say
from scripts.bench.training.optimizers import bench_optimizers
from scripts.bench.training.steps import KINDS, best_ms, cpu_step, make_model
from trfmoe_core.config import ModelConfig, TrainingConfig
from trfmoe_core.malloc import keep_freed_memory
from trfmoe_core.training.trainer import Trainer

CPU_CONFIG = ModelConfig.model_validate(
    {"layers": 4, "width": 256, "heads": 4, "experts": 8, "top_k": 2, "expert_width": 512, "context": 256}
)
CPU_VOCAB, CPU_BATCH = 8192, 4
CPU_TEXT = (
    "process CPU time of one thread, forward, backward and torch's fused AdamW, 1,024 tokens, taking turns, best of "
    "all rounds; float32, and bfloat16 by autocast; every side with the allocator settings of a training process "
    "(trfmoe_core.malloc); transformers: Mixtral with its default grouped experts, loss and load-balancing loss; "
    "dense: this code with one SwiGLU network as wide as top_k experts in the place of the mixture; floor: the "
    "products at the measured rate plus one pass of fused AdamW over all weights"
)


def bench_cpu(rounds: int, modes: Sequence[str]) -> dict[str, Any]:
    """Returns the best process CPU time of each step in milliseconds, the ratios, and what lies in memory."""
    torch.set_num_threads(1)
    keep_freed_memory()
    result: dict[str, Any] = {"compared": CPU_TEXT, "machine": machine()}
    say(f"{json.dumps(result['machine'])}; {CPU_TEXT}")
    rates = result["machine"]["gflops"]
    floors = {name: floor_ms(CPU_CONFIG, CPU_VOCAB, CPU_BATCH * CPU_CONFIG.context, rates[name]) for name in rates}
    result["floor_ms"] = {name: round(value, 1) for name, value in floors.items()}
    say(f"floor in ms: {json.dumps(result['floor_ms'])}")
    for mode in modes:
        if mode == "compiled" and (missing := _missing_compiler()):
            result["compiled"] = {"skipped": missing}
            say(f"compiled: skipped: {missing}")
            continue
        found = _compared(mode, rounds)
        result |= found
        say(f"{mode}: {json.dumps(found)}")
    result["trainer"] = {name_of(dtype): bench_optimizer(dtype, rounds) for dtype in TYPES}
    say(f"trainer: {json.dumps(result['trainer'])}")
    result["peak_mb"] = {name: child.result_of("scripts.bench.model:growth", kind=name) for name in KINDS}
    result["held"] = bench_held(CPU_CONFIG, CPU_VOCAB)
    return result


def bench_optimizer(dtype: torch.dtype, rounds: int) -> dict[str, float]:
    """Returns the processor time of a step of the real trainer, and the shares of clipping and of the optimizer."""
    model = make_model(CPU_CONFIG, CPU_VOCAB, torch.device("cpu"), dense=False)
    settings = {"precision": name_of(dtype), "warmup_steps": 0, "learning_rate": 1e-4}
    trainer = Trainer(model, TrainingConfig.model_validate(settings), 1000, torch.device("cpu"))
    batch = np.random.default_rng(0).integers(0, CPU_VOCAB, (CPU_BATCH, CPU_CONFIG.context + 1))
    stream: Any = SimpleNamespace(next=lambda: batch, ignored_target=None)
    spent = {"clip": 0.0, "optimizer": 0.0}
    parts: dict[str, Callable[..., Any]] = {"clip": trainer._clip, "optimizer": trainer._optimizer.step}

    def timed(name: str) -> Any:
        def call(*args: Any) -> Any:
            started = time.process_time()
            try:
                return parts[name](*args)
            finally:
                spent[name] += time.process_time() - started

        return call

    trainer._clip, trainer._optimizer.step = timed("clip"), timed("optimizer")  # type: ignore[method-assign]
    trainer.train(stream, 2)
    spent.update(dict.fromkeys(spent, 0.0))
    started = time.process_time()
    trainer.train(stream, rounds)
    total = time.process_time() - started
    shares = {f"{name}_share": round(seconds / total, 4) for name, seconds in spent.items()}
    return {"step_ms": round(1000 * total / rounds, 1), **shares}


def _compared(mode: str, rounds: int) -> dict[str, Any]:
    """Returns times and ratios of all kinds in one mode; the eager one has both number types, taking turns."""
    tokens = torch.randint(
        0, CPU_VOCAB, (CPU_BATCH, CPU_CONFIG.context + 1), generator=torch.Generator().manual_seed(0)
    )
    variants = {mode: torch.float32} | ({"bfloat16": torch.bfloat16} if mode == "eager" else {})
    steps = {
        f"{kind}_{variant}": cpu_step(kind, CPU_CONFIG, CPU_VOCAB, tokens, dtype, mode == "compiled")
        for variant, dtype in variants.items()
        for kind in KINDS
    }
    best = best_ms(steps, rounds)
    found: dict[str, Any] = {f"{name}_ms": round(value, 1) for name, value in best.items()}
    for variant in variants:
        for other in ("transformers", "dense"):
            found[f"vs_{other}_{variant}"] = round(best[f"{other}_{variant}"] / best[f"ours_{variant}"], 3)
    if "bfloat16" in variants:
        found["bfloat16_over_float32"] = round(best["ours_eager"] / best["ours_bfloat16"], 3)
    return found


def _missing_compiler() -> str:
    """Returns what torch.compile lacks on this machine, or nothing."""
    wanted = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++"]
    if any(shutil.which(name) for name in wanted):
        return ""
    return f"torch.compile needs a C++ compiler, and none of {', '.join(wanted)} is there; install g++ or set CXX"


def growth(kind: str) -> float | None:
    """Returns by how many MB this process grows in its first three training steps of one kind of model."""
    torch.set_num_threads(1)
    tokens = torch.randint(0, CPU_VOCAB, (CPU_BATCH, CPU_CONFIG.context + 1))
    # What the library itself takes when it first computes is not the model's.
    torch.ones(64, 64) @ torch.ones(64, 64)
    step = cpu_step(kind, CPU_CONFIG, CPU_VOCAB, tokens)
    return growth_mb(lambda: [step() for _ in range(3)])


def main(quick: bool = False, cuda_only: bool = False, as_json: bool = False) -> None:
    """Runs the benchmarks that this machine can run."""
    result: dict[str, Any] = {"torch": torch.__version__}
    if not cuda_only:
        modes = ["eager", *["compiled"] * (not quick)]
        result["cpu"] = bench_cpu(5 if quick else 12, modes)
        told = ("vs_", "bfloat16_over")
        result |= {key: value for key, value in result["cpu"].items() if key.startswith(told)}
        say(f"peak growth in MB: {json.dumps(result['cpu']['peak_mb'])}")
        result["cpu"]["optimizers"] = bench_optimizers(5 if quick else 12)
        for row in [*result["cpu"]["held"], *result["cpu"]["optimizers"]]:
            say(json.dumps(row))
    if torch.cuda.is_available():
        result["cuda"] = bench_cuda(quick)
    elif cuda_only:
        say("no CUDA device that torch can use")
    if as_json:
        say(json.dumps(result))
