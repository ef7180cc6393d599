"""The model against transformers' Mixtral, and what a seed fixes."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import MixtralConfig, MixtralForCausalLM

from trfmoe_core.config import ModelConfig
from trfmoe_core.errors import ConfigError
from trfmoe_core.model.stock.exporting import stock_config
from trfmoe_core.model.stock.families.mixtral import Mixtral
from trfmoe_core.model.stock.tensors import fill, pieces, to_stock
from trfmoe_core.model.transformer import MoETransformer, build_model

BASE: dict[str, Any] = {
    "layers": 2,
    "width": 32,
    "heads": 4,
    "experts": 4,
    "top_k": 2,
    "expert_width": 24,
    "context": 16,
}
SHAPES: list[dict[str, Any]] = [
    {},
    {"layers": 3, "width": 96, "heads": 6, "kv_heads": 2, "experts": 6, "top_k": 3, "expert_width": 40},
    {"heads": 4, "kv_heads": 1, "tie_embeddings": True, "rope_theta": 5e5, "norm_eps": 1e-6},
    {"layers": 1, "width": 64, "heads": 2, "experts": 8, "top_k": 1, "context": 40},
]
VOCAB = 72


def make_config(**changes: Any) -> ModelConfig:
    return ModelConfig.model_validate({**BASE, "balance": "pooled", "init_std": 0.1, **changes})


def draw_tokens(config: ModelConfig, batch: int = 3) -> Tensor:
    return torch.randint(0, VOCAB, (batch, config.context + 1), generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("changes", SHAPES)
def test_logits_loss_and_gradients_are_those_of_mixtral(changes: dict[str, Any]) -> None:
    config = make_config(**changes)
    torch.manual_seed(1)
    settings = stock_config(config, VOCAB) | {"output_router_logits": True}
    mixtral = MixtralForCausalLM(MixtralConfig(**settings))
    model = MoETransformer(config, VOCAB)
    fill(model.state_dict(), pieces(Mixtral(), config, stacked=True), mixtral.state_dict())
    tokens = draw_tokens(config)

    theirs = mixtral(input_ids=tokens[:, :-1])
    logits = model(tokens[:, :-1]).logits_BTV
    output = model(tokens[:, :-1], tokens[:, 1:])
    cross_entropy = torch.nn.functional.cross_entropy(theirs.logits.flatten(0, 1), tokens[:, 1:].flatten())
    expected = cross_entropy + config.balance_weight * theirs.aux_loss
    assert (logits - theirs.logits).abs().max() <= 1e-5
    assert (output.balance_loss - theirs.aux_loss).abs() <= 1e-6
    assert (output.loss - expected).abs() <= 1e-6

    expected.backward()
    output.loss.backward()
    ours = {name: parameter.grad for name, parameter in model.named_parameters()}
    ours = to_stock(Mixtral(), config, ours, stacked=True)
    for name, parameter in mixtral.named_parameters():
        assert (ours[name] - parameter.grad).abs().max() <= 1e-6, name


def test_transformers_own_loss_is_the_same() -> None:
    config = make_config()
    torch.manual_seed(2)
    mixtral = MixtralForCausalLM(MixtralConfig(**stock_config(config, VOCAB), output_router_logits=True))
    model = MoETransformer(config, VOCAB)
    fill(model.state_dict(), pieces(Mixtral(), config, stacked=True), mixtral.state_dict())
    tokens = draw_tokens(config)[:, :-1]
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[:, -1] = False
    loss = model(tokens, tokens.roll(-1, dims=1), mask).loss
    assert (loss - mixtral(input_ids=tokens, labels=tokens).loss).abs() <= 1e-6


def test_a_seed_fixes_the_weights_and_leaves_the_global_generator_alone() -> None:
    config = make_config(init_std=0.02)
    before = torch.get_rng_state()
    first, again, other = (build_model(config, VOCAB, seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["embedding.weight"], other["embedding.weight"])
    assert first["embedding.weight"].std() == pytest.approx(0.02, rel=0.1)
    assert first["layers.0.experts.w_down_EDF"].std() == pytest.approx(0.02 / 2, rel=0.1)
    assert torch.equal(first["norm.weight"], torch.ones(32))


def test_parameter_names_and_shapes() -> None:
    config = make_config(kv_heads=2)
    shapes = {name: tuple(p.shape) for name, p in build_model(config, VOCAB, 0).named_parameters()}
    assert shapes["embedding.weight"] == shapes["head.weight"] == (VOCAB, 32)
    assert shapes["layers.1.router.weight"] == (4, 32)
    assert shapes["layers.1.experts.w_gate_up_EGD"] == (4, 48, 32)
    assert shapes["layers.1.experts.w_down_EDF"] == (4, 32, 24)
    assert shapes["layers.0.attention.qkv.weight"] == (64, 32)
    assert {"layers.0.attention_norm.weight", "layers.0.moe_norm.weight", "norm.weight"} <= shapes.keys()


def test_counts_hold_every_slot_and_the_future_is_not_seen() -> None:
    config = make_config()
    model = build_model(config, VOCAB, 0)
    tokens = draw_tokens(config, batch=2)[:, :-1]
    output = model(tokens)
    assert output.expert_counts_LE.sum(dim=1).tolist() == [2 * 16 * 2] * 2
    changed = tokens.clone()
    changed[:, 9] = (changed[:, 9] + 1) % VOCAB
    logits = model(changed).logits_BTV
    assert torch.equal(logits[:, :9], output.logits_BTV[:, :9])
    assert not torch.equal(logits[:, 9], output.logits_BTV[:, 9])


def test_gradients_repeat_bit_for_bit() -> None:
    config = make_config()
    tokens = draw_tokens(config)

    def gradients() -> list[Tensor]:
        model = build_model(config, VOCAB, 0)
        return list(torch.autograd.grad(model(tokens[:, :-1], tokens[:, 1:]).loss, list(model.parameters())))

    assert all(torch.equal(a, b) for a, b in zip(gradients(), gradients(), strict=True))


def test_autocast_computes_in_bfloat16_and_keeps_float32_losses() -> None:
    config = make_config()
    model, tokens = build_model(config, VOCAB, 0), draw_tokens(config)
    exact = model(tokens[:, :-1], tokens[:, 1:])
    with torch.autocast("cpu", torch.bfloat16):
        output = model(tokens[:, :-1], tokens[:, 1:])
        assert model(tokens[:, :-1]).logits_BTV.dtype == torch.bfloat16
    output.loss.backward()
    assert output.loss.dtype == torch.float32
    assert all(parameter.grad.dtype == torch.float32 for parameter in model.parameters())
    assert output.cross_entropy.item() == pytest.approx(exact.cross_entropy.item(), abs=0.02)


def test_too_long_a_sequence_and_a_missing_target_say_what_to_do() -> None:
    model = build_model(make_config(), VOCAB, 0)
    with pytest.raises(ConfigError, match=r"17 tokens is longer than model\.context 16"):
        model(torch.zeros(1, 17, dtype=torch.int64))
    with pytest.raises(ConfigError, match="targets"):
        _ = model(torch.zeros(1, 4, dtype=torch.int64)).loss
