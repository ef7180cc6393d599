"""Muon: the plain algorithm matrix by matrix, experts and fused projections apart, and an exact resume."""

import math

import pytest
import torch
from torch import Tensor, nn

from trfmoe_core.config import ModelConfig, TrainingConfig
from trfmoe_core.errors import ConfigError, RunError
from trfmoe_core.model.transformer import build_model
from trfmoe_core.training.optimizers import muon
from trfmoe_core.training.optimizers.adamw import BlockAdamW
from trfmoe_core.training.optimizers.base import OPTIMIZERS
from trfmoe_core.training.optimizers.muon import COEFFICIENTS, Muon, orthogonalised

CONFIG = TrainingConfig.model_validate({"optimizer": "muon", "weight_decay": 0.1})
STACK, FUSED = "layers.0.experts.w_gate_up_EGD", "layers.0.attention.qkv.weight"
SHAPES = {"head.weight": (5, 4), "norm.weight": (4,), STACK: (3, 10, 4), FUSED: (12, 7)}
MATRICES = {STACK: (5, 5), FUSED: (6, 3, 3)}
RATE = 0.01


def make_parameters() -> dict[str, nn.Parameter]:
    draw = torch.Generator().manual_seed(0)
    return {name: nn.Parameter(torch.randn(shape, generator=draw)) for name, shape in SHAPES.items()}


def set_gradients(parameters: dict[str, nn.Parameter], number: int) -> None:
    draw = torch.Generator().manual_seed(100 + number)
    for parameter in parameters.values():
        parameter.grad = torch.randn(parameter.shape, generator=draw)


def plain_step(weight: Tensor, average: Tensor, grad: Tensor) -> None:
    """The algorithm for one matrix, in place, in double precision: the polynomials act on its singular values."""
    average.mul_(0.95).add_(grad, alpha=0.05)
    left, values, right = torch.linalg.svd(grad.mul(0.05).add(average, alpha=0.95), full_matrices=False)
    values = values / values.pow(4).sum().pow(0.25)
    for a, b, c in COEFFICIENTS:
        values = a * values + b * values**3 + c * values**5
    x = (left * values) @ right
    weight.mul_(1 - RATE * 0.1).add_(x, alpha=-RATE * 0.2 * math.sqrt(max(x.shape)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_matrix_takes_the_plain_algorithms_step_and_the_rest_takes_adamws(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(muon, "product_type", lambda device: dtype)
    limits = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 0.02, "atol": 0.002}
    ours, theirs = make_parameters(), make_parameters()
    optimizer, adamw = Muon(ours, CONFIG, matrices=MATRICES), BlockAdamW(theirs, CONFIG)
    fused, stack = (theirs[name].detach().double() for name in (FUSED, STACK))
    parts = [*fused.split(MATRICES[FUSED]), *(part for expert in stack for part in expert.split(MATRICES[STACK]))]
    averages = [torch.zeros_like(part) for part in parts]
    for number in range(4):
        set_gradients(ours, number)
        set_gradients(theirs, number)
        grads = [theirs[name].grad.double() for name in (FUSED, STACK)]  # type: ignore[union-attr]
        pieces = [*grads[0].split(MATRICES[FUSED]), *(p for e in grads[1] for p in e.split(MATRICES[STACK]))]
        for part, average, grad in zip(parts, averages, pieces, strict=True):
            plain_step(part, average, grad)
        optimizer.step(RATE)
        adamw.step(RATE)
    torch.testing.assert_close(ours[FUSED].detach(), fused.float(), **limits)
    torch.testing.assert_close(ours[STACK].detach(), stack.float(), **limits)
    for name in ("head.weight", "norm.weight"):
        assert torch.equal(ours[name], theirs[name])


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 5, 40), (2, 40, 5), (1, 1, 6)])
def test_singular_values_end_near_one(shape: tuple[int, int, int]) -> None:
    values = torch.linalg.svdvals(orthogonalised(torch.randn(shape, generator=torch.Generator().manual_seed(1))))
    assert values.max() < 1.3
    assert values.median() > 0.6
    assert torch.equal(orthogonalised(torch.zeros(shape)), torch.zeros(shape))


def test_an_expert_without_tokens_rests_and_moves_no_other() -> None:
    paused, busy = make_parameters(), make_parameters()
    with_pause, without = (Muon(found, CONFIG, matrices=MATRICES) for found in (paused, busy))
    for number in range(3):
        set_gradients(paused, number)
        set_gradients(busy, number)
        before = paused[STACK].detach().clone()
        with_pause.step(RATE, {"layers.0.experts.1"} if number == 1 else ())
        without.step(RATE)
        moved = (paused[STACK] != before).flatten(1).any(dim=1).tolist()
        assert moved == [True, number != 1, True]
    torch.testing.assert_close(paused[STACK][[0, 2]], busy[STACK][[0, 2]], rtol=1e-5, atol=1e-6)
    assert int(with_pause.state()["updates.layers.0.experts.1"]) == 2


def test_a_resume_changes_no_bit_and_another_optimizers_state_is_refused() -> None:
    first, second = make_parameters(), make_parameters()
    whole, begun = (Muon(found, CONFIG, matrices=MATRICES) for found in (first, second))
    for number in range(2):
        set_gradients(first, number)
        set_gradients(second, number)
        whole.step(RATE)
        begun.step(RATE)
    state = {name: tensor.clone() for name, tensor in begun.state().items()}
    assert {f"momentum.{STACK}.2", f"momentum.{FUSED}", "exp_avg.norm.weight"} <= state.keys()
    resumed = Muon(second, CONFIG, matrices=MATRICES)
    resumed.load_state(state)
    set_gradients(first, 2)
    set_gradients(second, 2)
    whole.step(RATE)
    resumed.step(RATE)
    assert all(torch.equal(first[name], second[name]) for name in SHAPES)
    with pytest.raises(RunError, match="another model or optimizer"):
        BlockAdamW(make_parameters(), CONFIG).load_state(state)


def test_the_model_names_its_matrices() -> None:
    config = ModelConfig.model_validate(
        {
            "layers": 1,
            "width": 16,
            "heads": 4,
            "kv_heads": 2,
            "context": 8,
            "experts": 2,
            "top_k": 1,
            "expert_width": 24,
        }
    )
    model = build_model(config, 32, seed=0)
    parameters = dict(model.named_parameters())
    found = model.hidden_matrices()
    assert found[FUSED] == (16, 8, 8)
    assert found[STACK] == (24, 24)
    for name, rows in found.items():
        assert sum(rows) == parameters[name].shape[-2]
    left = {name for name, parameter in parameters.items() if parameter.ndim >= 2} - found.keys()
    assert left == {"embedding.weight", "head.weight", "layers.0.router.weight"}


def test_an_unknown_optimizer_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"training.optimizer: 'adam' is unknown; choose one of adamw, muon"):
        OPTIMIZERS.find("adam")


def test_the_largest_singular_value_holds_with_errors_of_two_percent_in_every_iteration() -> None:
    high = 1.02
    for a, b, c in COEFFICIENTS:
        x = torch.linspace(0, high, 200_001, dtype=torch.float64)
        high = float((a * x + b * x**3 + c * x**5).max()) * 1.02
    assert high <= muon.LARGEST_SINGULAR_VALUE < high * 1.01
