"""Dispatch is a permutation, and every way of multiplying gives the naive result."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trfmoe_core.model import grouped, products
from trfmoe_core.model.dispatch import from_experts, plan_dispatch, to_experts
from trfmoe_core.model.grouped import Backend, grouped_multiply


def draw_choices(tokens: int, experts: int, top_k: int, seed: int) -> Tensor:
    return torch.rand(tokens, experts, generator=torch.Generator().manual_seed(seed)).topk(top_k).indices


@settings(max_examples=40, deadline=None)
@given(tokens=st.integers(1, 40), experts=st.integers(1, 9), data=st.data(), seed=st.integers(0, 99))
def test_a_dispatch_is_a_stable_sort_with_its_inverse(
    tokens: int, experts: int, data: st.DataObject, seed: int
) -> None:
    top_k = data.draw(st.integers(1, experts))
    choice_NK = draw_choices(tokens, experts, top_k, seed)
    dispatch = plan_dispatch(choice_NK, experts)
    flat = choice_NK.reshape(-1)
    by_hand = sorted(range(flat.numel()), key=lambda slot: (int(flat[slot]), slot))
    assert dispatch.order_S.tolist() == by_hand
    assert dispatch.token_S.tolist() == [slot // top_k for slot in by_hand]
    assert dispatch.order_S[dispatch.inverse_NK.reshape(-1)].tolist() == list(range(flat.numel()))
    assert dispatch.counts_E.tolist() == torch.bincount(flat, minlength=experts).tolist()
    assert dispatch.ends_E.tolist() == torch.bincount(flat, minlength=experts).cumsum(0).tolist()


def test_to_and_from_experts_and_their_gradients_are_those_of_indexing() -> None:
    choice_NK = draw_choices(13, 5, 3, 0)
    dispatch = plan_dispatch(choice_NK, 5)
    x = torch.randn(13, 7, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(13, 3, dtype=torch.float64, requires_grad=True)
    assert torch.equal(to_experts(x, dispatch), x[dispatch.token_S])
    expected = (x[dispatch.token_S][dispatch.inverse_NK] * weight.unsqueeze(-1)).sum(1)
    torch.testing.assert_close(from_experts(to_experts(x, dispatch), weight, dispatch), expected)
    assert torch.autograd.gradcheck(lambda a, w: from_experts(to_experts(a, dispatch), w, dispatch), (x, weight))


@pytest.mark.parametrize("backend", ["loop", "native"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_grouped_multiplication_equals_the_naive_one(backend: Backend, dtype: torch.dtype) -> None:
    choice_NK = draw_choices(37, 5, 2, 1)
    dispatch = plan_dispatch(choice_NK, 7)  # Experts 5 and 6 see no token.
    x, w = torch.randn(74, 16, requires_grad=True), torch.randn(7, 24, 16, requires_grad=True)
    upstream = torch.randn(74, 24)

    def run(name: Backend) -> tuple[Tensor, ...]:
        out = grouped_multiply(x.to(dtype), w, dispatch, name)
        return (out, *torch.autograd.grad(out, (x, w), upstream.to(dtype)))

    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 5e-2}
    results = run(backend)
    for got, expected in zip(results, run("naive"), strict=True):
        torch.testing.assert_close(got, expected, **tolerance)
    assert torch.equal(results[2][5:], torch.zeros(2, 24, 16))


def test_frozen_experts_multiply_like_the_others_and_cost_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    dispatch = plan_dispatch(draw_choices(9, 3, 2, 2), 3)
    x, w = torch.randn(18, 8, requires_grad=True), torch.randn(3, 8, 8)
    trained, frozen = w[:1].clone().requires_grad_(), w[1:]
    gradients: list[Tensor] = []

    def recorded(*given: Any) -> None:
        products.sum_outer_products(*given)
        gradients.append(given[-1])

    monkeypatch.setattr(grouped, "sum_outer_products", recorded)

    def run(backend: Backend) -> tuple[Tensor, ...]:
        out = grouped_multiply(x, trained, dispatch, backend, frozen)
        return (out, *torch.autograd.grad(out.square().sum(), (x, trained)))

    for got, expected in zip(run("loop"), run("naive"), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    assert len(gradients) == 1
