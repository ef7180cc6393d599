"""The models that the benchmarks of training compare, and their steps.

A mixture of experts is compared with a dense model of equal active work, and with transformers' Mixtral.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from trfmoe_core.config import ModelConfig
from trfmoe_core.model.attention import Attention
from trfmoe_core.model.experts.swiglu import swiglu
from trfmoe_core.model.layers import Projection, RMSNorm
from trfmoe_core.model.moe import RoutingStats
from trfmoe_core.model.transformer import MoETransformer
from trfmoe_core.training.compile import compile_layers

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

    def forward(self, x_BTD: Tensor, cos_TP: Tensor, sin_TP: Tensor, *rest: Any) -> tuple[Tensor, RoutingStats]:
        """Returns the residual stream and constants in the place of what routing did."""
        dtype: torch.dtype = rest[-1]
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD, dtype), cos_TP, sin_TP)
        ones_E = self.get_buffer("ones_E")
        stats = RoutingStats(ones_E.long(), ones_E, ones_E.new_zeros(()))
        return x_BTD + self.down(swiglu(self.gate_up(self.moe_norm(x_BTD, dtype)))), stats


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


def cpu_step(
    kind: str,
    config: ModelConfig,
    vocab_size: int,
    tokens: Tensor,
    dtype: torch.dtype = torch.float32,
    compiled: bool = False,
) -> Step:
    """Returns the training step of one of `KINDS` on the CPU.

    Args:
        kind: `ours`, `dense` (ours, dense) or `transformers` (Mixtral with its default grouped experts).
        config: The model's shape.
        vocab_size: Its vocabulary.
        tokens: (B, T + 1).
        dtype: Type of products and activations; bfloat16 is torch's autocast.
        compiled: Compile the layers, or all of transformers' model.
    """
    inputs, targets = tokens[:, :-1], tokens[:, 1:]

    def precision() -> AbstractContextManager[object]:
        return torch.autocast("cpu", dtype) if dtype == torch.bfloat16 else nullcontext()

    if kind == "transformers":
        # Here, because a machine that only measures CUDA needs neither.
        from transformers import MixtralConfig, MixtralForCausalLM

        from trfmoe_core.model.stock.exporting import stock_config

        settings = stock_config(config, vocab_size) | {"output_router_logits": True, "use_cache": False}
        mixtral = MixtralForCausalLM(MixtralConfig(**settings))
        if compiled:
            mixtral.compile()

        def their_loss() -> Tensor:
            with precision():
                loss: Tensor = mixtral(input_ids=inputs, labels=inputs).loss
            return loss

        return training_step(mixtral, their_loss)
    device = torch.device("cpu")
    model = make_model(config, vocab_size, device, kind == "dense")
    if compiled:
        compile_layers(model, device, dtype)

    def our_loss() -> Tensor:
        with precision():
            return model(inputs, targets).loss  # type: ignore[no-any-return]

    return training_step(model, our_loss)


def best_ms(steps: Mapping[str, Step], rounds: int) -> dict[str, float]:
    """Returns the best process CPU time of each step after two that do not count, the steps taking turns."""
    best = dict.fromkeys(steps, float("inf"))
    for round_number in range(rounds + 2):
        for name, step in steps.items():
            started = time.process_time()
            step()
            if round_number >= 2:
                best[name] = min(best[name], 1000 * (time.process_time() - started))
    return best
