"""The limits of a step: reached by the worst gradients, never exceeded by any."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from trfmoe_core.config import TrainingConfig
from trfmoe_core.training.optimizers.adamw import BlockAdamW
from trfmoe_core.training.optimizers.largest_step import adamw_largest_step
from trfmoe_core.training.optimizers.muon import LARGEST_SINGULAR_VALUE, Muon, orthogonalised


def config(**given: float) -> TrainingConfig:
    return TrainingConfig.model_validate({"weight_decay": 0.0, "learning_rate": 1.0, **given})


def test_the_limit_is_the_known_one_for_many_updates_and_1_for_the_first() -> None:
    for betas, limit in (((0.9, 0.95), 1.165), ((0.9, 0.99), 2.345), ((0.9, 0.999), 7.27)):
        of = config(beta1=betas[0], beta2=betas[1])
        assert adamw_largest_step(of, 10**6).value == pytest.approx(limit, rel=1e-3)
        assert adamw_largest_step(of, 1).value == pytest.approx(1.0)
    assert adamw_largest_step(config(beta1=0.9, beta2=0.0), 5).value == math.inf


@given(st.floats(0, 0.999), st.floats(0.01, 0.9999), st.integers(1, 3000))
def test_the_limit_grows_with_the_updates(beta1: float, beta2: float, updates: int) -> None:
    of = config(beta1=beta1, beta2=beta2)
    before, after = (adamw_largest_step(of, count).value for count in (updates, updates + 1))
    assert 1.0 - 1e-9 <= before <= after * (1 + 1e-9)


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 0.95), st.floats(0.5, 0.999), st.integers(1, 60))
def test_the_worst_gradients_reach_the_limit_and_no_others_exceed_it(beta1: float, beta2: float, updates: int) -> None:
    of = config(beta1=beta1, beta2=beta2)
    limit = adamw_largest_step(of, updates).value
    worst = [(beta1 / beta2) ** (updates - 1 - i) for i in range(updates)]
    worst = [1e3 * gradient / max(worst) for gradient in worst]
    assert last_step(of, worst) == pytest.approx(limit, rel=1e-3)
    random = torch.randn(updates, generator=torch.Generator().manual_seed(updates)).exp().tolist()
    assert last_step(of, random) <= limit * (1 + 1e-5)


def last_step(of: TrainingConfig, gradients: list[float]) -> float:
    """Returns how far the last of some gradients moves a value at learning rate 1."""
    parameters = {"norm.weight": nn.Parameter(torch.zeros(1))}
    optimizer = BlockAdamW(parameters, of)
    for gradient in gradients:
        before = float(parameters["norm.weight"].detach())
        parameters["norm.weight"].grad = torch.tensor([gradient])
        optimizer.step(1.0)
    return abs(float(parameters["norm.weight"].detach()) - before)


@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (16, 64), (64, 16), (48, 48)])
def test_orthogonalised_matrices_stay_below_the_limit(shape: tuple[int, int]) -> None:
    draw = torch.Generator().manual_seed(0)
    inputs = [torch.randn(4, *shape, generator=draw) * 10.0**power for power in (-8, 0, 8)]
    rank = torch.randn(4, shape[0], 1, generator=draw) @ torch.randn(4, 1, shape[1], generator=draw)
    for matrices in (*inputs, rank, inputs[1] ** 5):
        largest = torch.linalg.matrix_norm(orthogonalised(matrices), ord=2)
        assert float(largest.max()) <= 1.28 < LARGEST_SINGULAR_VALUE
    step = Muon.largest_step(shape, [shape[0]], config(), 3)
    assert step is not None
    assert step.spectral == pytest.approx(LARGEST_SINGULAR_VALUE * 0.2 * math.sqrt(max(shape)))
