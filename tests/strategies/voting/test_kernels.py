"""Chunked arithmetic: equal to numpy's on whole arrays, for every number of replicas, in bounded memory."""

import tracemalloc

import numpy as np
import pytest
import torch
from torch import Tensor

from strategies.voting import kernels
from strategies.voting.kernels import identical, mean, median, norm, survey
from strategies.voting.vote import Agreement, vote
from trfmoe_core.quantize import quantize, rows_of

SIZE = 8192


@pytest.fixture(autouse=True)
def many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "CHUNK", SIZE)


def draw(seed: int, count: int, size: int, around: float = 0.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [around + torch.randn(size, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("count", [1, 2, 6, 7, 8, 16, 30])
def test_median_of_any_number_equals_numpy_bit_for_bit(count: int) -> None:
    updates = draw(count, count, 3 * SIZE + 1)
    expected = np.median(np.stack([update.numpy() for update in updates]), axis=0)
    assert np.array_equal(median(updates).numpy(), expected)


@pytest.mark.parametrize("count", [3, 4, 7])
def test_median_sorts_every_order_of_zeros_and_ones(count: int) -> None:
    every = (np.arange(2**count) >> np.arange(count)[:, None] & 1).astype(np.float32)
    result = median([torch.from_numpy(row) for row in every])
    assert np.array_equal(result.numpy(), np.median(every, axis=0))


@pytest.mark.parametrize("count", [3, 4])
def test_median_of_scaled_replicas_leaves_the_replicas_alone(count: int) -> None:
    updates = draw(0, count, 2 * SIZE + 3)
    before = [update.clone() for update in updates]
    scales = [1.0, 0.5, 2.0, 0.25][:count]
    expected = np.median(np.stack([u.numpy() * np.float32(s) for u, s in zip(updates, scales, strict=True)]), axis=0)
    assert np.array_equal(median(updates, scales).numpy(), expected)
    assert all(torch.equal(update, old) for update, old in zip(updates, before, strict=True))


def test_a_value_that_is_not_a_number_is_not_hidden() -> None:
    updates = draw(0, 3, 5)
    for i in range(3):
        updates[i][i + 1] = float("nan")
        assert not norm(updates[i]) < float("inf")
    assert median(updates).isnan().tolist() == [False, True, True, True, False]
    updates[0][2:] = float("-inf")
    updates[0][:2] = 0
    assert not norm(updates[0]) < float("inf")


@pytest.mark.parametrize("count", [2, 3, 5, 14])
def test_inner_products_are_those_of_double_precision(count: int) -> None:
    updates = draw(1, count, 5 * SIZE + 11)
    norms, dots = survey(updates, [1.0] * count)
    stacked = np.stack([update.numpy() for update in updates]).astype(np.float64)
    expected = stacked @ stacked.T
    assert norms == pytest.approx(np.sqrt(np.diag(expected)), rel=1e-6)
    for i in range(count):
        for j in range(i + 1, count):
            assert dots[i][j] == pytest.approx(expected[i, j], abs=1e-6 * expected[0, 0])


@pytest.mark.parametrize("count", [2, 3, 5, 14])
def test_a_survey_leaves_the_mean_to_the_bit(count: int) -> None:
    updates = draw(2, count, 9 * SIZE + 5)
    factors = [1.0, 0.5, 1.7, *[1 / 3] * count][:count]
    on_the_way, alone = torch.empty(9 * SIZE + 5), torch.empty(9 * SIZE + 5)
    survey(updates, factors, on_the_way)
    mean(updates, factors, alone)
    assert torch.equal(on_the_way, alone)


def test_identical_finds_the_one_value_that_differs() -> None:
    one = torch.zeros(3 * SIZE)
    other = one.clone()
    assert identical(one, other)
    assert identical(one, other.to(torch.bfloat16))
    other[-1] = 1
    assert not identical(one, other)


@pytest.mark.parametrize("rule", ["majority", "median", "mean"])
@pytest.mark.parametrize(("count", "dtype"), [(1, "int8"), (2, "int4"), (3, "int8"), (3, "int4"), (14, "int8")])
def test_a_vote_on_rounded_replicas_is_the_vote_on_what_they_stand_for(rule: str, count: int, dtype: str) -> None:
    rows = rows_of(((3 * SIZE // 7, 7), (33, 257)))
    size = rows[-1].offset + 33 * 257
    few = {f"n{i:02d}": quantize(update, rows, dtype) for i, update in enumerate(draw(4, count, size))}
    if count > 2:
        few["n00"] = quantize(-5 * few["n01"].dense(), rows, dtype)
    wide = {name: replica.dense() for name, replica in few.items()}
    expected, named = vote(rule, wide, Agreement(cosine=-0.01))  # type: ignore[arg-type]
    found, verdict = vote(rule, few, Agreement(cosine=-0.01))  # type: ignore[arg-type]
    assert verdict == named
    assert (found is None) == (expected is None)
    assert found is None or torch.equal(found, expected)
    assert identical(few["n00"], wide["n00"])


@pytest.mark.parametrize(("count", "dtype", "chunks"), [(3, torch.float32, 4), (3, torch.bfloat16, 6), (30, None, 16)])
@pytest.mark.parametrize("rule", ["majority", "median", "mean"])
def test_a_vote_holds_its_result_and_one_set_of_chunks(
    rule: str, count: int, dtype: torch.dtype | None, chunks: int
) -> None:
    size = 64 * SIZE
    replicas = {f"n{i:02d}": update.to(dtype or torch.float32) for i, update in enumerate(draw(3, count, size))}
    replicas["n00"] = -5 * replicas["n01"]
    vote(rule, replicas, Agreement(cosine=-0.01))  # type: ignore[arg-type]
    tracemalloc.start()
    vote(rule, replicas, Agreement(cosine=-0.01))  # type: ignore[arg-type]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    slack = 65_536 + 64 * count * count
    assert peak <= 4 * (size + chunks * SIZE) + slack
