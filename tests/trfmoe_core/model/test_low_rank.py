"""Low-rank experts: what they compute, what of them is trained, and that they are the dense network at first."""

import pytest
import torch
from torch import Tensor

from trfmoe_core.blocks import TRUNK, BlockLayout, expert_block
from trfmoe_core.config import ModelConfig
from trfmoe_core.config.model import ExpertsConfig
from trfmoe_core.model.experts.low_rank import LowRankExperts
from trfmoe_core.model.local_experts import local_experts
from trfmoe_core.model.moe import mix_experts
from trfmoe_core.model.transformer import MoETransformer, build_model

VOCAB = 40
SHAPE = {"layers": 2, "width": 32, "heads": 4, "experts": 4, "expert_width": 24, "context": 16, "init_std": 0.1}
CONFIG = ModelConfig.model_validate({**SHAPE, "expert": "low_rank", "rank": 4, "alpha": 12})


def trained_model(**changes: object) -> MoETransformer:
    model = build_model(CONFIG.model_copy(update=changes), VOCAB, 0)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if ".experts.b_" in name:
                weights.normal_(0, 0.1, generator=torch.Generator().manual_seed(len(name)))
    return model


def draw_tokens() -> Tensor:
    return torch.randint(0, VOCAB, (4, 17), generator=torch.Generator().manual_seed(0))


def full_experts(model: MoETransformer) -> MoETransformer:
    """Returns the model with every expert written out."""
    config = CONFIG.model_copy(update={"expert": "swiglu"})
    full = MoETransformer(config, VOCAB)
    weights = {name: value for name, value in model.named_weights().items() if ".experts." not in name}
    for number, layer in enumerate(model.layers):
        weights |= {f"layers.{number}.experts.{name}": stack for name, stack in layer.experts.merged(CONFIG).items()}
    with torch.no_grad():
        for name, parameter in full.named_parameters():
            parameter.copy_(weights[name])
    return full


def test_an_expert_is_the_base_network_plus_the_product_of_its_factors() -> None:
    model = trained_model(experts=1, top_k=1)
    experts = model.layers[0].experts
    assert isinstance(experts, LowRankExperts)
    base, x = experts.base, torch.randn(9, 32)
    scale = 12 / 4
    gate_up = base.w_gate_up_GD + scale * experts.b_gate_up_EGR[0] @ base.a_gate_up_RD
    down = base.w_down_DF + scale * experts.b_down_EDR[0] @ base.a_down_RF
    gate, up = (x @ gate_up.T).chunk(2, dim=-1)
    by_hand = (torch.nn.functional.silu(gate) * up) @ down.T
    torch.testing.assert_close(mix_experts(x, model.layers[0].router, experts)[0], by_hand, rtol=1e-4, atol=1e-5)


def test_every_expert_begins_as_the_base_network() -> None:
    one = build_model(CONFIG.model_copy(update={"experts": 1, "top_k": 1}), VOCAB, 0)
    many = build_model(CONFIG, VOCAB, 0)
    with torch.no_grad():
        for name, weights in many.named_weights().items():
            if "router" not in name and ".experts.b_" not in name:
                weights.copy_(one.named_weights()[name])
    tokens = draw_tokens()[:, :-1]
    torch.testing.assert_close(many(tokens).logits_BTV, one(tokens).logits_BTV, rtol=1e-4, atol=1e-5)


def test_merged_experts_compute_the_same() -> None:
    model, tokens = trained_model(), draw_tokens()[:, :-1]
    torch.testing.assert_close(full_experts(model)(tokens).logits_BTV, model(tokens).logits_BTV, rtol=1e-4, atol=1e-5)


def test_only_factors_b_of_experts_are_parameters() -> None:
    model = build_model(CONFIG, VOCAB, 0)
    names = {name.partition(".experts.")[2] for name, _ in model.named_parameters() if ".experts." in name}
    assert names == {"b_gate_up_EGR", "b_down_EDR"}
    shared = {name.partition(".experts.base.")[2] for name in model.frozen_weights()}
    assert shared == {"w_gate_up_GD", "w_down_DF", "a_gate_up_RD", "a_down_RF"}
    layout = BlockLayout.of(dict(model.named_parameters()))
    assert layout.specs["layers.1.experts.3"].numel == (2 * 24 + 32) * 4
    assert not any("experts" in slot.tensor for slot in layout.specs[TRUNK].slots)


def test_a_step_gives_gradients_to_parameters_alone_and_training_learns() -> None:
    model, tokens, losses = build_model(CONFIG, VOCAB, 0), draw_tokens(), []
    before = {name: weights.clone() for name, weights in model.frozen_weights().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(30):
        loss = model(tokens[:, :-1], tokens[:, 1:]).loss
        loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.3
    for name, weights in model.frozen_weights().items():
        assert weights.grad is None
        assert torch.equal(weights, before[name])


@pytest.mark.parametrize("unheld", ["train", "freeze", "absent"])
def test_a_node_with_some_experts_computes_with_them(unheld: str) -> None:
    whole = trained_model()
    held = [expert_block(layer, expert) for layer in range(2) for expert in (0, 2, 3)]
    experts = ExpertsConfig.model_validate({"unheld": unheld, "absent_routing": "skip"})
    part = MoETransformer(CONFIG, VOCAB, local_experts(CONFIG, experts, held))
    layout = BlockLayout.of(dict(whole.named_parameters()))
    here = part.block_values()
    layout.scatter(layout.gather(dict(whole.named_parameters()), BlockLayout.of(here).names), here)
    with torch.no_grad():
        for name, weights in part.frozen_weights().items():
            weights.copy_(whole.frozen_weights()[name])
        if unheld == "absent":  # What is absent adds nothing to the base network.
            for layer in whole.layers:
                layer.experts.b_gate_up_EGR[1] = 0.0
                layer.experts.b_down_EDR[1] = 0.0
    tokens = draw_tokens()[:, :-1]
    torch.testing.assert_close(part(tokens).logits_BTV, whole(tokens).logits_BTV, rtol=1e-4, atol=1e-5)


def test_a_rank_that_saves_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="rank: 25 is above the smaller of width 32 and expert_width 24"):
        ModelConfig.model_validate({**SHAPE, "expert": "low_rank", "rank": 25})
