"""Models of which a node has only a part: what they compute, what they train, and what they leave alone."""

from typing import Any

import pytest
import torch
from torch import Tensor

from trfmoe_core.blocks import TRUNK, BlockLayout, expert_block
from trfmoe_core.config import ModelConfig
from trfmoe_core.config.model import ExpertsConfig
from trfmoe_core.errors import ConfigError
from trfmoe_core.model.local_experts import local_experts
from trfmoe_core.model.transformer import MoETransformer, build_model, parameter_shapes

CONFIG = ModelConfig.model_validate(
    {"layers": 2, "width": 32, "heads": 4, "experts": 8, "expert_width": 24, "context": 16, "init_std": 0.2}
)
VOCAB = 72
HELD = [TRUNK, *(expert_block(0, e) for e in (1, 4, 6)), *(expert_block(1, e) for e in (0, 1, 2, 7))]


def tokens(batch: int = 4) -> Tensor:
    return torch.randint(0, VOCAB, (batch, 17), generator=torch.Generator().manual_seed(5))


def part_of(whole: MoETransformer, held: list[str] = HELD, **experts: Any) -> MoETransformer:
    settings = ExpertsConfig.model_validate(experts)
    part = MoETransformer(whole.config, VOCAB, local_experts(whole.config, settings, held))
    layout = BlockLayout.of(parameter_shapes(whole.config, VOCAB))
    here = part.block_values()
    layout.scatter(layout.gather(whole.block_values(), BlockLayout.of(here).names), here)
    return part


def losses(model: MoETransformer) -> Any:
    return model(tokens()[:, :-1], tokens()[:, 1:])


def gradients(model: MoETransformer) -> dict[str, Any]:
    losses(model).loss.backward()
    return model.by_expert({name: p.grad for name, p in model.named_parameters() if p.grad is not None})


def test_what_lies_where_and_how_much() -> None:
    whole = build_model(CONFIG, VOCAB, 0)
    sizes = {
        kind: sum(p.numel() for p in part_of(whole, unheld=kind).parameters()) for kind in ("train", "freeze", "absent")
    }
    expert = 3 * 32 * 24
    assert sizes["train"] == sum(p.numel() for p in whole.parameters())
    assert sizes["freeze"] == sizes["absent"] == sizes["train"] - (16 - 7) * expert
    frozen = sum(b.numel() for name, b in part_of(whole, unheld="freeze").named_buffers() if "frozen_" in name)
    assert frozen == (16 - 7) * expert
    assert BlockLayout.of(part_of(whole, unheld="absent").block_values()).names == sorted(
        HELD, key=BlockLayout.of(whole.block_values()).names.index
    )
    layout = BlockLayout.of(whole.block_values())
    assert layout.names == BlockLayout.of(dict(whole.named_parameters())).names
    assert layout.specs == BlockLayout.of(parameter_shapes(CONFIG, VOCAB)).specs


def test_frozen_experts_work_and_get_no_gradient() -> None:
    whole = build_model(CONFIG, VOCAB, 0)
    part = part_of(whole, unheld="freeze")
    ours, theirs = losses(part), losses(whole)
    assert torch.equal(ours.expert_counts_LE, theirs.expert_counts_LE)
    torch.testing.assert_close(ours.loss, theirs.loss, rtol=0, atol=1e-6)
    got, expected = gradients(part), gradients(whole)
    for layer, numbers in enumerate([{1, 4, 6}, {0, 1, 2, 7}]):
        for stack in ("w_gate_up_EGD", "w_down_EDF"):
            name = f"layers.{layer}.experts.{stack}"
            assert set(got[name]) == numbers
            for e in numbers:
                torch.testing.assert_close(got[name][e], expected[name][e], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(got["layers.0.router.weight"], expected["layers.0.router.weight"], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(got["embedding.weight"], expected["embedding.weight"], rtol=1e-4, atol=1e-7)


def test_a_restricted_router_picks_among_those_at_hand_and_leaves_the_other_rows_alone() -> None:
    whole = build_model(CONFIG, VOCAB, 0)
    part = part_of(whole, unheld="absent")
    output = losses(part)
    slots = 4 * 16 * 2
    assert output.expert_counts_LE.sum(dim=1).tolist() == [slots, slots]
    absent = [e for e in range(8) if e not in (1, 4, 6)]
    assert not output.expert_counts_LE[0, absent].any()
    grads = gradients(part)
    rows = grads["layers.0.router.weight"]
    assert not rows[absent].any() and rows[[1, 4, 6]].abs().min() > 0
    # A whole model whose other rows cannot win computes the same.
    masked = build_model(CONFIG, VOCAB, 0)
    for layer, numbers in zip(masked.layers, [(1, 4, 6), (0, 1, 2, 7)], strict=True):
        linear = layer.router.forward

        def only(x_ND: Tensor, router: Any = layer.router, numbers: Any = numbers, linear: Any = linear) -> Any:
            logits = x_ND @ router.weight.T
            closed = torch.full_like(logits, -torch.inf)
            closed[:, numbers] = logits[:, numbers]
            prob = closed.softmax(-1)
            top, choice = prob.topk(2)
            return linear(x_ND)._replace(choice_NK=choice, weight_NK=top / top.sum(-1, keepdim=True), prob=prob.mean(0))

        layer.router.forward = only
    expected = losses(masked)
    torch.testing.assert_close(output.cross_entropy, expected.cross_entropy, rtol=0, atol=1e-6)
    share = output.expert_counts_LE.float() / slots
    by_hand = sum(
        count * (share[layer] * stats).sum()
        for layer, (count, stats) in enumerate(
            zip((3, 4), part.hidden(tokens()[:, :-1], torch.float32)[1].prob, strict=True)
        )
    )
    torch.testing.assert_close(output.balance_loss, by_hand / 2)


def test_skip_routes_as_the_whole_model_and_leaves_out_what_is_absent() -> None:
    whole = build_model(CONFIG, VOCAB, 0)
    part = part_of(whole, unheld="absent", absent_routing="skip")
    with torch.no_grad():
        for number, held in enumerate([(1, 4, 6), (0, 1, 2, 7)]):
            for e in range(8):
                if e not in held:
                    whole.layers[number].experts.w_down_EDF[e] = 0.0
    ours, theirs = losses(part), losses(whole)
    assert torch.equal(ours.expert_counts_LE, theirs.expert_counts_LE)
    assert ours.expert_counts_LE[0, 0] > 0
    torch.testing.assert_close(ours.loss, theirs.loss, rtol=0, atol=1e-6)
    got, expected = gradients(part), gradients(whole)
    for name in ("embedding.weight", "layers.0.router.weight", "layers.1.attention.qkv.weight"):
        torch.testing.assert_close(got[name], expected[name], rtol=1e-4, atol=1e-7)
    for e in (1, 4, 6):
        name = "layers.0.experts.w_gate_up_EGD"
        torch.testing.assert_close(got[name][e], expected[name][e], rtol=1e-4, atol=1e-7)


def test_too_few_experts_at_hand_are_refused() -> None:
    absent = ExpertsConfig.model_validate({"unheld": "absent"})
    with pytest.raises(ConfigError, match=r"holds 1 of the 8 experts of layer 1.*top_k = 2.*freeze"):
        local_experts(CONFIG, absent, [*HELD[:4], expert_block(1, 3)])
