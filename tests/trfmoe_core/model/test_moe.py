"""The router and its losses."""

import pytest
import torch
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from trfmoe_core.config import ModelConfig
from trfmoe_core.model.moe import Router, balance_loss
from trfmoe_core.model.transformer import build_model


def test_the_router_keeps_the_best_and_renormalises() -> None:
    router = Router(ModelConfig.model_validate({"width": 8, "heads": 2, "experts": 5, "top_k": 3}))
    with torch.no_grad():
        router.weight.normal_(generator=torch.Generator().manual_seed(0))
    x = torch.randn(11, 8, generator=torch.Generator().manual_seed(1))
    routing = router(x)
    logits = x @ router.weight.T
    top, choice = logits.topk(3)
    assert torch.equal(routing.choice_NK, choice)
    torch.testing.assert_close(routing.weight_NK, top.softmax(-1))
    torch.testing.assert_close(routing.prob, logits.softmax(-1).mean(0))
    assert router(x.bfloat16()).weight_NK.dtype == torch.float32


@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_balance_is_one_a_layer_and_top_k_pooled(top_k: int) -> None:
    counts, probs = torch.full((3, 8), 16 * top_k), torch.full((3, 8), 1 / 8)
    assert balance_loss(counts, probs, top_k, "per_layer").item() == pytest.approx(1.0)
    assert balance_loss(counts, probs, top_k, "pooled").item() == pytest.approx(top_k)


def test_layers_with_opposite_imbalance_cancel_only_when_pooled() -> None:
    counts, probs = torch.tensor([[10, 0], [0, 10]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert balance_loss(counts, probs, 1, "per_layer").item() == pytest.approx(2.0)
    assert balance_loss(counts, probs, 1, "pooled").item() == pytest.approx(1.0)


def test_pooled_is_transformers_function() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = tuple(torch.randn(50, 6, generator=generator) for _ in range(3))
    probs = torch.stack([layer.softmax(-1).mean(0) for layer in logits])
    counts = torch.stack([torch.bincount(layer.topk(2).indices.flatten(), minlength=6) for layer in logits])
    expected = load_balancing_loss_func(logits, 6, 2)
    torch.testing.assert_close(balance_loss(counts, probs, 2, "pooled"), expected)


def test_the_z_loss_is_the_mean_square_of_the_log_denominator_and_keeps_logits_small() -> None:
    config = ModelConfig.model_validate(
        {"layers": 2, "width": 16, "heads": 2, "experts": 5, "expert_width": 16, "context": 16, "z_loss_weight": 0.5}
    )
    router = Router(config)
    torch.nn.init.normal_(router.weight, generator=torch.Generator().manual_seed(0))
    x = torch.randn(11, 16, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(router(x).z_loss, (x @ router.weight.T).logsumexp(-1).square().mean())

    tokens = torch.randint(0, 40, (2, 17), generator=torch.Generator().manual_seed(2))
    model = build_model(config, 40, 0)
    output = model(tokens[:, :-1], tokens[:, 1:])
    by_hand = output.cross_entropy + config.balance_weight * output.balance_loss + 0.5 * output.z_loss
    torch.testing.assert_close(output.loss, by_hand)
    stats = model.hidden(tokens[:, :-1], torch.float32)[1]
    torch.testing.assert_close(output.z_loss, stats.z_loss.mean())
    assert output.z_loss > 0
    without = build_model(config.model_copy(update={"z_loss_weight": 0.0}), 40, 0)(tokens[:, :-1], tokens[:, 1:])
    assert without.z_loss == 0 and torch.equal(without.cross_entropy, output.cross_entropy)
