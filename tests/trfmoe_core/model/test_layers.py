"""Norm, rotary positions, attention and loss against torch's and transformers' own."""

from typing import Any

import pytest
import torch
import torch.nn.functional as nnf
from transformers.models.mixtral.modeling_mixtral import apply_rotary_pos_emb

from trfmoe_core.model import loss as loss_module
from trfmoe_core.model.attention.base import rotary_tables, rotate
from trfmoe_core.model.layers import RMSNorm
from trfmoe_core.model.loss import linear_cross_entropy


def test_rms_norm_and_its_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    norm = RMSNorm(12, 1e-5)
    with torch.no_grad():
        norm.weight.normal_(generator=generator)
    x, upstream = (torch.randn(3, 5, 12, generator=generator) for _ in range(2))
    x.requires_grad_()
    expected = nnf.rms_norm(x, (12,), norm.weight, 1e-5)
    torch.testing.assert_close(norm(x), expected)
    leaves = (x, norm.weight)
    got = torch.autograd.grad(norm(x), leaves, upstream)
    torch.testing.assert_close(got, torch.autograd.grad(expected, leaves, upstream), rtol=1e-5, atol=1e-5)


def test_rms_norm_in_bfloat16_is_that_of_float32_but_for_rounding() -> None:
    generator = torch.Generator().manual_seed(0)
    norm = RMSNorm(64, 1e-5)
    with torch.no_grad():
        norm.weight.normal_(1.0, 0.2, generator=generator)
    x, upstream = (torch.randn(3, 5, 64, generator=generator).to(torch.bfloat16) for _ in range(2))
    x.requires_grad_()
    exact = x.detach().float().requires_grad_()
    got, expected = norm(x), nnf.rms_norm(exact, (64,), norm.weight, 1e-5)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), expected, rtol=2**-8, atol=1e-6)
    grads = torch.autograd.grad(got, (x, norm.weight), upstream)
    wanted = torch.autograd.grad(expected, (exact, norm.weight), upstream.float())
    assert [grad.dtype for grad in grads] == [torch.bfloat16, torch.float32]
    torch.testing.assert_close(grads[0].float(), wanted[0], rtol=2**-7, atol=1e-2)
    torch.testing.assert_close(grads[1], wanted[1], rtol=1e-4, atol=1e-4)


def test_rotation_is_transformers_and_turns_back() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(2, 9, 3, 8, generator=generator) for _ in range(2))
    cos, sin = rotary_tables(9, 8, 10000.0)
    full = [torch.cat([table, table], dim=-1)[None] for table in (cos, sin)]
    expected = apply_rotary_pos_emb(q.transpose(1, 2), k.transpose(1, 2), *full)
    torch.testing.assert_close(rotate(q, cos, sin).transpose(1, 2), expected[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(rotate(k, cos, sin).transpose(1, 2), expected[1], rtol=0, atol=1e-6)
    torch.testing.assert_close(rotate(rotate(q, cos, sin), cos, -sin), q)


@pytest.mark.parametrize("masked", [False, True])
def test_cross_entropy_in_chunks_is_torchs(masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_module, "CPU_CHUNK_BYTES", 1)  # The least: 64 rows, so four chunks, the last one short.
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(201, 16, generator=generator, requires_grad=True)
    w = torch.randn(50, 16, generator=generator, requires_grad=True)
    targets = torch.randint(0, 50, (201,), generator=generator)
    mask = torch.rand(201, generator=generator) < 0.7 if masked else None
    kept = targets if mask is None else targets.masked_fill(~mask, -100)
    expected = nnf.cross_entropy(nnf.linear(x, w), kept)
    got = linear_cross_entropy(x, w, targets, mask)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
    gradients: list[Any] = [torch.autograd.grad(3.0 * value, (x, w)) for value in (got, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-7)
    with torch.no_grad():
        assert torch.equal(linear_cross_entropy(x, w, targets, mask), got)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("chunks", [1, 2, 100], ids="{} chunks a block".format)
def test_cross_entropy_in_bfloat16_is_that_of_float32_but_for_rounding(
    chunks: int, masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_module, "CPU_CHUNK_BYTES", 1)  # 64 rows
    monkeypatch.setattr(loss_module, "CPU_BLOCK_BYTES", 2 * 50 * 64 * chunks)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(201, 16, generator=generator).to(torch.bfloat16).requires_grad_()
    w = torch.randn(50, 16, generator=generator).to(torch.bfloat16).float().requires_grad_()
    targets = torch.randint(0, 50, (201,), generator=generator)
    mask = torch.rand(201, generator=generator) < 0.7 if masked else None
    kept = targets if mask is None else targets.masked_fill(~mask, -100)
    exact = x.detach().float().requires_grad_()
    got, expected = linear_cross_entropy(x, w, targets, mask), nnf.cross_entropy(nnf.linear(exact, w), kept)
    torch.testing.assert_close(got, expected, rtol=3e-3, atol=0)
    grads, wanted = (torch.autograd.grad(3.0 * value, (leaf, w)) for value, leaf in ((got, x), (expected, exact)))
    assert [grad.dtype for grad in grads] == [torch.bfloat16, torch.float32]
    for grad, exact_grad in zip(grads, wanted, strict=True):
        assert float((grad.float() - exact_grad).norm() / exact_grad.norm()) < 0.01
    with torch.no_grad():
        assert torch.equal(linear_cross_entropy(x, w, targets, mask), got)


def test_nothing_counted_is_a_loss_of_zero() -> None:
    x, w = torch.randn(4, 8, requires_grad=True), torch.randn(6, 8, requires_grad=True)
    loss = linear_cross_entropy(x, w, torch.zeros(4, dtype=torch.int64), torch.zeros(4, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0 and not x.grad.any() and not w.grad.any()
