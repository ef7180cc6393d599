"""bfloat16 attention on the CPU against torch's in float32."""

import pytest
import torch
import torch.nn.functional as nnf
from torch import Tensor

from trfmoe_core.config import ModelConfig
from trfmoe_core.model import cpu_attention
from trfmoe_core.model.attention import Attention
from trfmoe_core.model.attention.base import rotary_tables
from trfmoe_core.model.cpu_attention import causal_attention


def make_heads(length: int) -> list[Tensor]:
    """Returns queries, keys, values and a gradient (2, 3, length, 8), as views of what a projection gives."""
    generator = torch.Generator().manual_seed(0)
    joined = torch.randn(2, length, 4, 3, 8, generator=generator).to(torch.bfloat16)
    return [part.transpose(1, 2) for part in joined.unbind(2)]


@pytest.mark.parametrize("length", [1, 5, 16, 37])
@pytest.mark.parametrize("kept", [0, 1000], ids=["computed again", "kept"])
@pytest.mark.parametrize("block_bytes", [1, 1 << 20], ids=["head by head", "all heads"])
def test_output_and_gradients_are_torchs(
    length: int, kept: int, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_attention, "BLOCK_ROWS", 16)
    monkeypatch.setattr(cpu_attention, "BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(cpu_attention, "KEPT_CONTEXT", kept)
    *heads, grad = make_heads(length)
    leaves = [head.clone().requires_grad_() for head in heads]
    out = causal_attention(*leaves)
    found = [out, *torch.autograd.grad(out, leaves, grad)]
    exact = [head.float().requires_grad_() for head in heads]
    expected_out = nnf.scaled_dot_product_attention(*exact, is_causal=True)
    expected = [expected_out, *torch.autograd.grad(expected_out, exact, grad.float())]
    for got, wanted in zip(found, expected, strict=True):
        assert got.dtype == torch.bfloat16
        assert float((got.float() - wanted).norm()) <= 0.01 * float(wanted.norm()) + 0.01


def test_no_position_sees_a_later_one() -> None:
    *heads, _ = make_heads(40)
    whole = causal_attention(*heads)
    changed = [head.clone() for head in heads]
    for head in changed:
        head[:, :, 23:] += 1.0
    assert torch.equal(causal_attention(*changed)[:, :, :23], whole[:, :, :23])
    assert not torch.equal(causal_attention(*changed)[:, :, 23:], whole[:, :, 23:])


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_the_layer_computes_in_bfloat16_what_it_computes_in_float32(kv_heads: int) -> None:
    config = ModelConfig.model_validate({"width": 32, "heads": 4, "kv_heads": kv_heads, "context": 20})
    generator = torch.Generator().manual_seed(0)
    layer = Attention(config)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(0.0, 0.2, generator=generator)
    tables = rotary_tables(20, config.head_width, config.rope_theta)
    x = torch.randn(3, 20, 32, generator=generator)
    exact, rounded = layer(x, *tables), layer(x.to(torch.bfloat16), *tables)
    assert rounded.dtype == torch.bfloat16
    assert float((rounded.float() - exact).norm() / exact.norm()) < 0.02
