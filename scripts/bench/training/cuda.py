"""The CUDA part of `trfmoe bench model`: the real trainer in bfloat16 on the first device, against a dense model.

It needs torch and this project's trainer alone, not Flower: `python -m scripts.bench.child scripts.bench.model:main
'{"cuda_only": true, "as_json": true}'`.
"""

import gc
import json
import time
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scripts.bench.training.machine import say
from scripts.bench.training.steps import active_parameters, make_model
from trfmoe_core.config import ModelConfig, TrainingConfig
from trfmoe_core.model.dispatch import from_experts, plan_dispatch, to_experts
from trfmoe_core.model.experts.swiglu import swiglu
from trfmoe_core.model.grouped import Backend, grouped_multiply
from trfmoe_core.training.trainer import Trainer

PEAK_FLOPS = 989e12  # Dense bfloat16 of an H100 or H200, from the vendor's data sheet.
MFU_TEXT = "MFU = (6 * N_active * tokens + 6 * layers * context * width * tokens) / seconds / 989e12; causal attention"
TIME_LIMIT_S = 540.0

VOCAB, TOKENS = 32768, 65536
CONTEXTS = (1024, 2048)
SHAPES: dict[str, dict[str, int]] = {
    "125M": {"layers": 12, "width": 768, "heads": 12, "experts": 8, "top_k": 2, "expert_width": 1280},
    "300M": {"layers": 12, "width": 1280, "heads": 10, "experts": 8, "top_k": 2, "expert_width": 1920},
}
"""By their active parameters, the head included."""


def bench_cuda(quick: bool) -> dict[str, Any]:
    """Returns parity, and a row for every model, context and mode; what runs out of memory or time says so."""
    started = time.monotonic()
    say(f"{torch.cuda.get_device_name()}, torch {torch.__version__}; {TOKENS} tokens a step; {MFU_TEXT}")
    result: dict[str, Any] = {"device": torch.cuda.get_device_name(), "mfu_definition": MFU_TEXT, "rows": []}
    result["parity"] = _tried(bench_parity, started)
    say(f"parity: {json.dumps(result['parity'])}")
    cases = [(mode, size, context) for mode in ("compiled", "eager") for size in SHAPES for context in CONTEXTS]
    for mode, size, context in cases[:1] if quick else cases:
        config = ModelConfig.model_validate({**SHAPES[size], "context": context})
        row: dict[str, Any] = {"model": size, "context": context, "mode": mode}
        row["active_parameters"] = active_parameters(config, VOCAB)
        for kind in ("moe", "dense"):
            row[kind] = _tried(partial(bench_trainer, config, kind == "dense", mode == "compiled"), started)
        speeds = [row[kind].get("tokens_per_s") for kind in ("moe", "dense")]
        row["share_of_dense"] = round(speeds[0] / speeds[1], 3) if all(speeds) else None
        result["rows"].append(row)
        say(json.dumps(row))
    for line in table(result["rows"]):
        say(line)
    return result


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Returns the rows as a Markdown table."""
    lines = [
        "| model | context | mode | tokens/s | MFU | dense tokens/s | dense MFU | share of dense | peak GiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ours, dense = row["moe"], row["dense"]
        cells = [
            *(row["model"], row["context"], row["mode"]),
            ours.get("tokens_per_s", ours.get("skipped")),
            ours.get("mfu", ""),
            dense.get("tokens_per_s", dense.get("skipped")),
            dense.get("mfu", ""),
            row["share_of_dense"] or "",
            ours.get("peak_gib", ""),
        ]
        lines.append(f"| {' | '.join(str(cell) for cell in cells)} |")
    return lines


def bench_trainer(config: ModelConfig, dense: bool, compiled: bool, steps: int = 10) -> dict[str, Any]:
    """Returns tokens/s, MFU and peak memory of the real trainer on the first CUDA device."""
    device = torch.device("cuda", 0)
    torch.cuda.reset_peak_memory_stats()
    model = make_model(config, VOCAB, device, dense)
    settings = {"learning_rate": 1e-4, "warmup_steps": 0, "compile": compiled}
    trainer = Trainer(model, TrainingConfig.model_validate(settings), 1000, device)
    batch = np.random.default_rng(0).integers(0, VOCAB, (TOKENS // config.context, config.context + 1))
    stream: Any = SimpleNamespace(next=lambda: batch, ignored_target=None)
    first = trainer.train(stream, 3)
    metrics = trainer.train(stream, steps)
    rate = metrics.tokens / metrics.seconds
    return {
        "tokens_per_s": round(rate),
        "mfu": round(mfu(config, rate), 4),
        "step_ms": round(1000 * metrics.seconds / steps, 1),
        "warmup_s": round(first.seconds, 1),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2),
        "loss": [round(first.loss, 3), round(metrics.loss, 3)],
        "precision": str(trainer.precision),
    }


def mfu(config: ModelConfig, tokens_per_s: float) -> float:
    """Returns the share of the device's peak that the model's own products take, see `MFU_TEXT`."""
    flops = 6 * active_parameters(config, VOCAB) + 6 * config.layers * config.context * config.width
    return tokens_per_s * flops / PEAK_FLOPS


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


def _tried(case: Callable[[], dict[str, Any]], started: float) -> dict[str, Any]:
    if time.monotonic() - started > TIME_LIMIT_S - 60:
        return {"skipped": "out of time"}
    try:
        return case()
    except torch.cuda.OutOfMemoryError:
        return {"skipped": "out of memory"}
    finally:
        gc.collect()
        torch.cuda.empty_cache()
