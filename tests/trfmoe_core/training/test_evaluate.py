"""Held-out loss: exact over masked windows, whatever the batch size."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as nnf

from trfmoe_core.config import ModelConfig
from trfmoe_core.model.transformer import build_model
from trfmoe_core.training.evaluate import evaluate

CONFIG = ModelConfig.model_validate(
    {"layers": 1, "width": 32, "heads": 2, "experts": 4, "expert_width": 24, "context": 8, "init_std": 0.1}
)


def make_set() -> Any:
    draw = np.random.default_rng(0)
    mask = draw.random((7, 8)) < 0.8
    mask[3] = False
    return SimpleNamespace(tokens=draw.integers(0, 64, (7, 9)), mask=mask, num_bytes=100)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 50])
def test_loss_and_bits_per_byte(batch_size: int) -> None:
    model, windows = build_model(CONFIG, 64, 0), make_set()
    metrics = evaluate(model, windows, batch_size, torch.device("cpu"), torch.float32)
    tokens, mask = torch.from_numpy(windows.tokens), torch.from_numpy(windows.mask)
    with torch.no_grad():
        nats = nnf.cross_entropy(model(tokens[:, :-1]).logits_BTV.transpose(1, 2), tokens[:, 1:], reduction="none")
    total = float(nats.double()[mask].sum())
    assert metrics.tokens == int(mask.sum())
    assert metrics.loss == pytest.approx(total / metrics.tokens, rel=1e-5)
    assert metrics.bits_per_byte == pytest.approx(total / math.log(2) / 100, rel=1e-5)
    assert metrics.perplexity == pytest.approx(math.exp(metrics.loss))


def test_a_broken_model_scores_not_finite() -> None:
    model = build_model(CONFIG, 64, 0)
    with torch.no_grad():
        model.head.weight.fill_(float("nan"))
    metrics = evaluate(model, make_set(), 4, torch.device("cpu"), torch.float32)
    assert not math.isfinite(metrics.loss)
