"""`training.freeze`: which weights are trained, and the frozen part as it travels."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from trfmoe_core.blocks import TRUNK, BlockLayout
from trfmoe_core.config import ModelConfig
from trfmoe_core.config.training import Freeze
from trfmoe_core.errors import WireError
from trfmoe_core.model.frozen import FrozenPart, read_frozen, set_frozen
from trfmoe_core.model.transformer import build_model, frozen_shapes, parameter_shapes

VOCAB = 40
CONFIG = ModelConfig.model_validate(
    {"layers": 2, "width": 32, "heads": 4, "experts": 4, "expert_width": 24, "context": 16, "init_std": 0.1}
)
TRAINED = {
    "base": {"layers.0.router.weight", "layers.1.router.weight"},
    "trunk": set(),
}


def draw_tokens() -> Tensor:
    return torch.randint(0, VOCAB, (4, 17), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("freeze", ["base", "trunk"])
@pytest.mark.parametrize("tied", [False, True])
def test_what_is_frozen_has_no_gradient_and_the_rest_has_the_same(freeze: Freeze, tied: bool) -> None:
    config = CONFIG.model_copy(update={"tie_embeddings": tied})
    free, frozen = build_model(config, VOCAB, 0), build_model(config, VOCAB, 0, freeze=freeze)
    trained = {name for name, _ in frozen.named_parameters()}
    assert {name for name in trained if ".experts." not in name} == TRAINED[freeze]
    tokens = draw_tokens()
    for model in (free, frozen):
        model(tokens[:, :-1], tokens[:, 1:]).loss.backward()
    gradients = {name: parameter.grad for name, parameter in free.named_parameters()}
    for name, parameter in frozen.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name])
    assert all(weights.grad is None and not weights.requires_grad for weights in frozen.frozen_weights().values())
    assert set(frozen.named_weights()) == set(gradients)
    for name, weights in free.named_weights().items():
        assert torch.equal(weights, frozen.named_weights()[name])


def test_blocks_hold_only_what_is_trained() -> None:
    assert TRUNK not in BlockLayout.of(parameter_shapes(CONFIG, VOCAB, freeze="trunk")).names
    base = BlockLayout.of(parameter_shapes(CONFIG, VOCAB, freeze="base"))
    assert base.specs[TRUNK].numel == 2 * 4 * 32
    whole = sum(shape.numel() for shape in parameter_shapes(CONFIG, VOCAB).values())
    frozen = sum(shape.numel() for shape in frozen_shapes(CONFIG, VOCAB, "base").values())
    assert frozen + sum(spec.numel for spec in base.specs.values()) == whole
    assert not frozen_shapes(CONFIG, VOCAB, "none")


def test_a_frozen_tied_head_stays_tied_when_the_model_moves() -> None:
    model = build_model(CONFIG.model_copy(update={"tie_embeddings": True}), VOCAB, 0, freeze="trunk")
    model.to(torch.float64)
    assert model.head.weight is model.embedding.weight
    assert model.head.weight.dtype == torch.float64


def test_the_frozen_part_arrives_as_it_was() -> None:
    model = build_model(CONFIG, VOCAB, 0, freeze="trunk")
    with torch.no_grad():
        model.get_buffer("embedding.weight").copy_(model.get_buffer("embedding.weight").bfloat16())
    part = FrozenPart(model.frozen_weights())
    parcel = part.parcel(1 << 20)
    published = model.get_buffer("embedding.weight").numel() + sum(
        weights.numel() for name, weights in model.frozen_weights().items() if "norm" in name
    )
    assert sum(len(buffer) for buffer in parcel.buffers) == 4 * part.numel - 2 * published
    other = build_model(CONFIG, VOCAB, 1, freeze="trunk")
    values = read_frozen(parcel, frozen_shapes(CONFIG, VOCAB, "trunk"), part.digest)
    set_frozen(values, other.frozen_weights())
    assert FrozenPart(other.frozen_weights()).digest == part.digest


def test_another_frozen_part_than_announced_is_refused() -> None:
    shapes = frozen_shapes(CONFIG, VOCAB, "trunk")
    ours, theirs = (FrozenPart(build_model(CONFIG, VOCAB, seed, freeze="trunk").frozen_weights()) for seed in (0, 1))
    parcel = theirs.parcel(1 << 20)
    with pytest.raises(WireError, match=f"has the digest {theirs.digest[:12]}, and .* announced {ours.digest[:12]}"):
        read_frozen(parcel, shapes, ours.digest)
    without_norm = {name: values for name, values in ours.values.items() if name != "norm.weight"}
    shorter = FrozenPart(without_norm).parcel(1 << 20)
    with pytest.raises(WireError, match=r"lacks 1 of \d+ tensors, such as norm.weight|names or shapes"):
        read_frozen(replace(shorter), shapes, ours.digest)


@pytest.mark.parametrize("expert", ["swiglu", "low_rank"])
def test_frozen_matrices_in_bfloat16_change_no_bit_of_a_step_in_bfloat16(expert: str) -> None:
    config = CONFIG.model_copy(update={"expert": expert, "rank": 4})
    models = [build_model(config, VOCAB, 0, freeze="base") for _ in range(2)]
    models[1].halve_frozen()
    tokens, losses = draw_tokens(), []
    for model in models:
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(tokens[:, :-1], tokens[:, 1:]).loss
        loss.backward()
        losses.append(loss)
    assert torch.equal(*losses)
    for one, two in zip(*(model.parameters() for model in models), strict=True):
        assert one.grad is not None and two.grad is not None and torch.equal(one.grad, two.grad)
    types = {name: weights.dtype for name, weights in models[1].frozen_weights().items()}
    assert types["head.weight"] == types["layers.0.attention.qkv.weight"] == torch.bfloat16
    assert types["embedding.weight"] == types["norm.weight"] == torch.float32
