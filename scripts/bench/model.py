"""`trfmoe bench model`: how long training steps take. Without Flower: `python -m scripts.bench.child` runs `main`.

CPU: process CPU time of one thread in float32, against transformers' Mixtral and against a dense model of equal active
work. CUDA: the real trainer in bfloat16. Ratios are speeds: above 1 we are faster.
"""

import gc
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scripts.bench import child
from scripts.bench.held import bench_held
from scripts.bench.measure import growth_mb
from trfmoe_core.config import ModelConfig, TrainingConfig
from trfmoe_core.malloc import keep_freed_memory
from trfmoe_core.model.attention import Attention
from trfmoe_core.model.dispatch import from_experts, plan_dispatch, to_experts
from trfmoe_core.model.experts.swiglu import swiglu
from trfmoe_core.model.grouped import Backend, grouped_multiply
from trfmoe_core.model.layers import Projection, RMSNorm
from trfmoe_core.model.moe import RoutingStats
from trfmoe_core.model.products import ONEDNN
from trfmoe_core.model.transformer import MoETransformer
from trfmoe_core.training.compile import compile_layers
from trfmoe_core.training.trainer import Trainer

PEAK_FLOPS = 989e12  # Dense bfloat16 of an H100 or H200, from the vendor's data sheet.
MFU_TEXT = "MFU = (6 * N_active * tokens + 6 * layers * context * width * tokens) / seconds / 989e12; causal attention"
TIME_LIMIT_S = 270.0

CPU_CONFIG = ModelConfig.model_validate(
    {"layers": 4, "width": 256, "heads": 4, "experts": 8, "top_k": 2, "expert_width": 512, "context": 256}
)
CPU_VOCAB, CPU_BATCH = 8192, 4
CUDA_CONFIG = ModelConfig.model_validate(
    {"layers": 12, "width": 1536, "heads": 12, "experts": 8, "top_k": 2, "expert_width": 2048, "context": 2048}
)
CUDA_VOCAB, CUDA_BATCH = 32768, 32

CPU_TEXT = (
    "process CPU time of one thread, float32, forward, backward and torch's fused AdamW, 1,024 tokens, taking turns, "
    "best of all rounds; every side with the allocator settings of a training process (trfmoe_core.malloc); "
    "transformers: Mixtral with its default grouped experts, loss and load-balancing loss; dense: this code with one "
    "SwiGLU network as wide as top_k experts in the place of the mixture"
)
KINDS = ("ours", "dense", "transformers")

Step = Callable[[], None]


class DenseLayer(nn.Module):
    """A decoder layer whose feed-forward is one SwiGLU network as wide as top_k experts: no router, no dispatch."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden = config.top_k * config.expert_width
        self.attention_norm, self.attention = RMSNorm(config.width, config.norm_eps), Attention(config)
        self.moe_norm = RMSNorm(config.width, config.norm_eps)
        self.gate_up, self.down = Projection(config.width, 2 * hidden), Projection(hidden, config.width)
        self.register_buffer("ones_E", torch.ones(config.experts), persistent=False)

    def forward(self, x_BTD: Tensor, cos_TP: Tensor, sin_TP: Tensor, *_: None) -> tuple[Tensor, RoutingStats]:
        """Returns the residual stream and constants in the place of what routing did."""
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), cos_TP, sin_TP)
        ones_E = self.get_buffer("ones_E")
        stats = RoutingStats(ones_E.long(), ones_E, ones_E.new_zeros(()))
        return x_BTD + self.down(swiglu(self.gate_up(self.moe_norm(x_BTD)))), stats


def make_model(config: ModelConfig, vocab_size: int, device: torch.device, dense: bool) -> MoETransformer:
    """Returns an initialised model, built on the device."""
    with torch.device(device):
        model = MoETransformer(config, vocab_size)
        if dense:
            model.layers = nn.ModuleList([DenseLayer(config) for _ in range(config.layers)])
    model.init_weights(torch.Generator(device).manual_seed(0))
    return model


def active_parameters(config: ModelConfig, vocab_size: int) -> int:
    """Returns the weights that multiply one token; the embedding is looked up and does not count."""
    attention = config.width * config.head_width * (2 * config.heads + 2 * config.num_kv_heads)
    experts = config.top_k * 3 * config.width * config.expert_width
    return config.layers * (attention + experts + config.experts * config.width) + vocab_size * config.width


def training_step(model: nn.Module, loss: Callable[[], Tensor]) -> Step:
    """Returns forward, backward and AdamW as one call."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1, fused=True)

    def step() -> None:
        loss().backward()  # type: ignore[no-untyped-call,unused-ignore]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def cpu_step(name: str, tokens: Tensor, *, compiled: bool) -> Step:
    """Returns the training step of `ours`, `dense` (ours, dense) or `transformers` (its default grouped experts)."""
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    if name == "transformers":
        # Here, because a machine that only measures CUDA needs neither.
        from transformers import MixtralConfig, MixtralForCausalLM

        from trfmoe_core.model.families.exporting import stock_config

        settings = stock_config(CPU_CONFIG, CPU_VOCAB) | {"output_router_logits": True, "use_cache": False}
        mixtral = MixtralForCausalLM(MixtralConfig(**settings))
        if compiled:
            mixtral.compile()
        return training_step(mixtral, lambda: mixtral(input_ids=inputs, labels=inputs).loss)
    device = torch.device("cpu")
    model = make_model(CPU_CONFIG, CPU_VOCAB, device, name == "dense")
    if compiled:
        compile_layers(model, device, torch.float32)
    return training_step(model, lambda: model(inputs, targets).loss)


def bench_cpu(rounds: int, modes: Sequence[str]) -> dict[str, Any]:
    """Returns the best process CPU time of each step in milliseconds, the ratios, and what lies in memory."""
    torch.set_num_threads(1)
    keep_freed_memory()
    tokens = torch.randint(
        0, CPU_VOCAB, (CPU_BATCH, CPU_CONFIG.context + 1), generator=torch.Generator().manual_seed(0)
    )
    result: dict[str, Any] = {"compared": CPU_TEXT, "processor": processor_name(), "onednn": ONEDNN}
    say(f"{result['processor']}, oneDNN {ONEDNN}; {CPU_TEXT}")
    for mode in modes:
        if mode == "compiled" and (missing := _missing_compiler()):
            result["compiled"] = {"skipped": missing}
            say(f"compiled: skipped: {missing}")
            continue
        best = _best_ms({name: cpu_step(name, tokens, compiled=mode == "compiled") for name in KINDS}, rounds)
        result |= {f"{name}_{mode}_ms": round(value, 1) for name, value in best.items()}
        for other in ("transformers", "dense"):
            result[f"vs_{other}_{mode}"] = round(best[other] / best["ours"], 3)
        say(f"{mode}: {json.dumps({key: value for key, value in result.items() if mode in key})}")
    result["peak_mb"] = {name: child.result_of("scripts.bench.model:growth", kind=name) for name in KINDS}
    result["held"] = bench_held(CPU_CONFIG, CPU_VOCAB)
    return result


def _best_ms(steps: Mapping[str, Step], rounds: int) -> dict[str, float]:
    """Returns the best process CPU time of each step after two that do not count, the steps taking turns."""
    best = dict.fromkeys(steps, float("inf"))
    for round_number in range(rounds + 2):
        for name, step in steps.items():
            started = time.process_time()
            step()
            if round_number >= 2:
                best[name] = min(best[name], 1000 * (time.process_time() - started))
    return best


def _missing_compiler() -> str:
    """Returns what torch.compile lacks on this machine, or nothing."""
    wanted = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++"]
    if any(shutil.which(name) for name in wanted):
        return ""
    return f"torch.compile needs a C++ compiler, and none of {', '.join(wanted)} is there; install g++ or set CXX"


def bench_trainer(dense: bool, compiled: bool, steps: int) -> dict[str, Any]:
    """Returns tokens/s, MFU and peak memory of the real trainer on the first CUDA device."""
    config, device = CUDA_CONFIG, torch.device("cuda", 0)
    torch.cuda.reset_peak_memory_stats()
    model = make_model(config, CUDA_VOCAB, device, dense)
    settings = {"learning_rate": 1e-4, "warmup_steps": 0, "compile": compiled}
    trainer = Trainer(model, TrainingConfig.model_validate(settings), 1000, device)
    batch = np.random.default_rng(0).integers(0, CUDA_VOCAB, (CUDA_BATCH, config.context + 1))
    stream: Any = SimpleNamespace(next=lambda: batch, ignored_target=None)
    first = trainer.train(stream, 3)
    metrics = trainer.train(stream, steps)
    rate = metrics.tokens / metrics.seconds
    flops = 6 * active_parameters(config, CUDA_VOCAB) + 6 * config.layers * config.context * config.width
    return {
        "tokens_per_s": round(rate),
        "mfu": round(rate * flops / PEAK_FLOPS, 4),
        "step_ms": round(1000 * metrics.seconds / steps, 1),
        "warmup_s": round(first.seconds, 1),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2),
        "loss": [round(first.loss, 3), round(metrics.loss, 3)],
        "precision": str(trainer.precision),
    }


def bench_parity() -> dict[str, Any]:
    """Returns relative errors of the grouped CUDA path (output, then gradients) against a float32 naive reference.

    One of the experts is never chosen: its gradient must be zero, not whatever lay in memory.
    """
    tokens, width, hidden, experts, top_k = 4099, 1024, 1408, 8, 2
    generator = torch.Generator("cuda").manual_seed(0)

    def draw(*shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(shape, device="cuda", generator=generator) * scale

    x_ND, grad_ND = draw(tokens, width), draw(tokens, width)
    up_EGD, down_EDF = draw(experts, 2 * hidden, width, scale=0.03), draw(experts, width, hidden, scale=0.03)
    choice_NK = draw(tokens, experts - 1).topk(top_k).indices
    weight_NK = draw(tokens, top_k).softmax(-1)

    def run(dtype: torch.dtype, backend: Backend) -> list[Tensor]:
        leaves = [t.clone().requires_grad_() for t in (x_ND, up_EGD, down_EDF, weight_NK)]
        x, up, down, weight = leaves
        dispatch = plan_dispatch(choice_NK, experts)
        hidden_SF = swiglu(grouped_multiply(to_experts(x.to(dtype), dispatch), up, dispatch, backend))
        out = from_experts(grouped_multiply(hidden_SF, down, dispatch, backend), weight, dispatch)
        return [out.detach().float(), *torch.autograd.grad(out, leaves, grad_ND.to(dtype))]

    exact, naive = run(torch.float32, "naive"), run(torch.bfloat16, "naive")
    native, again = run(torch.bfloat16, "native"), run(torch.bfloat16, "native")

    def errors(got: list[Tensor]) -> dict[str, float]:
        names = ("output", "grad_x", "grad_gate_up", "grad_down", "grad_weight")
        pairs = zip(names, got, exact, strict=True)
        return {name: round(float((a - b).norm() / b.norm()), 6) for name, a, b in pairs}

    return {
        "native_bf16": errors(native),
        "naive_bf16": errors(naive),
        "idle_expert_grad_max": max(float(native[i][-1].abs().max()) for i in (2, 3)),
        "repeats_bit_for_bit": all(torch.equal(a, b) for a, b in zip(native, again, strict=True)),
    }


def bench_cuda(quick: bool) -> dict[str, Any]:
    """Returns the results of every CUDA case; one that runs out of memory says so and the others go on."""
    started, steps = time.monotonic(), 4 if quick else 10
    active = active_parameters(CUDA_CONFIG, CUDA_VOCAB)
    say(f"{torch.cuda.get_device_name()}, torch {torch.__version__}; {active / 1e6:.0f}M active parameters; {MFU_TEXT}")
    cases: dict[str, Callable[[], dict[str, Any]]] = {"parity": bench_parity}
    for compiled in (False, True):
        for dense in (False, True):
            name = f"{'dense' if dense else 'moe'}_{'compiled' if compiled else 'eager'}"
            cases[name] = partial(bench_trainer, dense, compiled, steps)
    result: dict[str, Any] = {"active_parameters": active, "mfu_definition": MFU_TEXT}
    for name, case in cases.items():
        if time.monotonic() - started > TIME_LIMIT_S - 60:
            result[name] = {"skipped": "out of time"}
        else:
            try:
                result[name] = case()
            except torch.cuda.OutOfMemoryError:
                result[name] = {"skipped": "out of memory"}
        say(f"{name}: {json.dumps(result[name])}")
        gc.collect()
        torch.cuda.empty_cache()
    for mode in ("eager", "compiled"):
        speeds = [result[f"{kind}_{mode}"].get("tokens_per_s") for kind in ("moe", "dense")]
        if all(speeds):
            result[f"moe_vs_dense_{mode}"] = round(speeds[0] / speeds[1], 3)
    return result


def processor_name() -> str:
    """Returns the processor's name on Linux, and its family elsewhere."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def say(line: str) -> None:
    """Writes a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def growth(kind: str) -> float | None:
    """Returns by how many MB this process grows in its first three training steps of one kind of model."""
    torch.set_num_threads(1)
    tokens = torch.randint(0, CPU_VOCAB, (CPU_BATCH, CPU_CONFIG.context + 1))
    # What the library itself takes when it first computes is not the model's.
    torch.ones(64, 64) @ torch.ones(64, 64)
    step = cpu_step(kind, tokens, compiled=False)
    return growth_mb(lambda: [step() for _ in range(3)])


def main(quick: bool = False, cuda_only: bool = False, as_json: bool = False) -> None:
    """Runs the benchmarks that this machine can run."""
    result: dict[str, Any] = {"torch": torch.__version__}
    if not cuda_only:
        modes = ["eager", *["compiled"] * (not quick)]
        result["cpu"] = bench_cpu(5 if quick else 12, modes)
        result |= {key: value for key, value in result["cpu"].items() if key.startswith("vs_")}
        say(f"peak growth in MB: {json.dumps(result['cpu']['peak_mb'])}")
        for row in result["cpu"]["held"]:
            say(json.dumps(row))
    if torch.cuda.is_available():
        result["cuda"] = bench_cuda(quick)
    elif cuda_only:
        say("no CUDA device that torch can use")
    if as_json:
        say(json.dumps(result))
