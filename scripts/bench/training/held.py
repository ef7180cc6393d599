"""A node's memory for different numbers of held experts; `trfmoe bench model` shows it."""

from typing import Any

import torch

from trfmoe_core.config import ModelConfig, TrainingConfig
from trfmoe_core.config.model import ExpertsConfig
from trfmoe_core.model.local_experts import local_experts
from trfmoe_core.model.transformer import MoETransformer
from trfmoe_core.training.optimizers.adamw import BlockAdamW


def held_bytes(config: ModelConfig, vocab_size: int, held: int, unheld: str) -> dict[str, int]:
    """Returns the bytes of weights, gradients and moments after one step of training.

    Args:
        config: Of the model.
        vocab_size: Padded.
        held: Experts that the node holds in each layer.
        unheld: What it does with the others, as `experts.unheld`.
    """
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
