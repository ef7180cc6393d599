"""The grouped products: every way to compute them gives the same, forward and backward."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from trfmoe_core.model.dispatch import Dispatch, plan_dispatch
from trfmoe_core.model.grouped import Backend, grouped_multiply
from trfmoe_core.model.products import ROW_STEP, SIZES_AN_OCTAVE, _rounded_up, _step

TOKENS, TOP_K, WIDTH, OUTPUT, EXPERTS = 157, 2, 24, 40, 5


def make_dispatch(share: str) -> Dispatch:
    """Returns a dispatch of tokens to five experts, of which the fourth gets none; number 5 is an absent one."""
    generator = torch.Generator().manual_seed(1)
    score_NE = torch.rand(TOKENS, EXPERTS + 1, generator=generator)
    score_NE[:, 3] = -1.0
    if share != "absent":
        score_NE[:, EXPERTS] = -1.0
    return plan_dispatch(score_NE.topk(TOP_K).indices, EXPERTS, complete=share != "absent")


def computed(share: str, dtype: torch.dtype, backend: Backend) -> list[Tensor]:
    """Returns output, gradient of the rows and gradient of the trained weights, all float32."""
    generator = torch.Generator().manual_seed(2)
    dispatch = make_dispatch(share)
    rows = TOKENS * TOP_K
    x_SD = torch.randn(rows, WIDTH, generator=generator).to(dtype).requires_grad_()
    w_EGD = torch.randn(EXPERTS, OUTPUT, WIDTH, generator=generator)
    grad_SG = torch.randn(rows, OUTPUT, generator=generator).to(dtype)
    frozen = w_EGD[3:].clone() if share == "frozen" else None
    trained = (w_EGD[:3] if share == "frozen" else w_EGD).clone().requires_grad_()
    out_SG = grouped_multiply(x_SD, trained, dispatch, backend, frozen)
    assert out_SG.dtype == dtype
    grad_x, grad_w = torch.autograd.grad(out_SG, [x_SD, trained], grad_SG)
    assert grad_w.dtype == torch.float32
    return [out_SG.detach().float(), grad_x.float(), grad_w]


@pytest.mark.parametrize("share", ["complete", "absent", "frozen"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=str)
@pytest.mark.parametrize("backend", ["loop", "native"])
def test_every_backend_computes_what_the_reference_computes(
    backend: Backend, dtype: torch.dtype, tolerance: float, share: str
) -> None:
    exact = computed(share, torch.float32, "naive")
    for found, expected in zip(computed(share, dtype, backend), exact, strict=True):
        assert found.isfinite().all()
        assert float((found - expected).norm() / expected.norm()) < tolerance


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("backend", ["loop", "native"])
def test_absent_experts_give_zeros_and_idle_ones_no_gradient(backend: Backend, dtype: torch.dtype) -> None:
    out, grad_x, grad_w = computed("absent", dtype, backend)
    end = int(make_dispatch("absent").ends_E[-1])
    assert 0 < end < len(out)
    for rows in (out, grad_x):
        assert not rows[end:].any()
        assert rows[:end].any()
    assert not grad_w[3].any()


def test_rows_of_one_expert_do_not_reach_another_one() -> None:
    dispatch = make_dispatch("complete")
    bounds = [0, *dispatch.ends_E.tolist()]
    for backend in ("loop", "native"):
        for dtype in (torch.float32, torch.bfloat16):
            x_SD = torch.zeros(TOKENS * TOP_K, WIDTH, dtype=dtype)
            x_SD[bounds[1] : bounds[2]] = 1.0
            w_EGD = torch.ones(EXPERTS, OUTPUT, WIDTH, requires_grad=True)
            out_SG = grouped_multiply(x_SD, w_EGD, dispatch, backend)  # type: ignore[arg-type]
            (grad_EGD,) = torch.autograd.grad(out_SG, w_EGD, torch.ones_like(out_SG))
            assert out_SG[bounds[1] : bounds[2]].eq(WIDTH).all()
            assert out_SG.float().sum() == WIDTH * OUTPUT * (bounds[2] - bounds[1])
            assert [bool(grad.any()) for grad in grad_EGD] == [False, True, False, False, False]


def test_numbers_of_rows_are_rounded_up_to_few_sizes() -> None:
    total = 4096
    sizes = set()
    for rows in range(1, total + 1):
        for begin in {0, (total - rows) // 2, total - rows}:
            first, last = _rounded_up(begin, begin + rows, total, _step(rows))
            assert 0 <= first <= begin and begin + rows <= last <= total
            assert last - first < rows + max(ROW_STEP, rows / SIZES_AN_OCTAVE)
            sizes.add(last - first)
    octaves = [(low, sum(low < size <= high for size in sizes)) for low, high in pairwise([256, 512, 1024, 2048, 4096])]
    assert all(count == SIZES_AN_OCTAVE for _, count in octaves), octaves
