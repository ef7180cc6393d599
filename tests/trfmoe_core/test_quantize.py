"""Int8 and int4 by rows: bounded error, exact zeros, and the same values whichever piece is asked for."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trfmoe_core import quantize as module
from trfmoe_core.quantize import LEVELS, num_rows, quantize, rows_of

SHAPES = ((5, 7), (3,), (2, 3, 4), (1, 1))
ROWS = rows_of(SHAPES)
NUMEL = 35 + 3 + 24 + 1


def draw(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randn(NUMEL, generator=generator).mul_(3).exp_()
    return torch.randn(NUMEL, generator=generator) * sizes


def test_rows_lie_along_the_last_dimension() -> None:
    assert [(part.offset, part.count, part.width, part.first) for part in ROWS] == [
        (0, 5, 7, 0),
        (35, 1, 3, 5),
        (38, 6, 4, 6),
        (62, 1, 1, 12),
    ]
    assert num_rows(ROWS) == 13


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([4, 15, 1 << 18]), st.sampled_from(list(LEVELS)))
def test_the_error_is_half_a_level_of_the_row(seed: int, piece: int, dtype: str) -> None:
    flat = draw(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PIECE", piece)
        back = quantize(flat, ROWS, dtype).dense()
    for part in ROWS:
        place = slice(part.offset, part.offset + part.count * part.width)
        before, after = flat[place].view(part.count, part.width), back[place].view(part.count, part.width)
        largest = before.abs().amax(1, keepdim=True)
        assert bool(((before - after).abs() <= largest / LEVELS[dtype] * 0.5001).all())
        assert torch.allclose(after.abs().amax(1, keepdim=True), largest, rtol=1e-6)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, NUMEL), st.integers(0, NUMEL), st.sampled_from([3, 8, 1 << 18]), st.sampled_from(list(LEVELS)))
def test_a_piece_is_the_same_as_in_the_whole(begin: int, end: int, piece: int, dtype: str) -> None:
    quantized = quantize(draw(1), ROWS, dtype)
    values = quantized.values
    if dtype == "int4":
        values = torch.tensor([half for byte in values.tolist() for half in (byte % 16 - 8, byte // 16 - 8)])
        assert NUMEL % 2 == 1 and len(values) == NUMEL + 1
    expected = torch.cat(
        [
            (values[p.offset : p.offset + p.count * p.width].view(p.count, p.width).float()
             * quantized.scales[p.first : p.first + p.count, None]).flatten()
            for p in ROWS
        ]
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PIECE", piece)
        assert torch.equal(quantized.dense(), expected)
        assert torch.equal(quantized[begin:end], expected[begin:end])


@pytest.mark.parametrize("dtype", LEVELS)
def test_zeros_and_what_is_almost_zero_are_zero(dtype: str) -> None:
    flat = torch.full((NUMEL,), 1e-38)
    flat[:7] = 0.0
    back = quantize(flat, ROWS, dtype).dense()
    assert bool((back == 0).all())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_shows_in_its_row_alone(value: float) -> None:
    flat = draw(2)
    flat[9] = value
    scales = quantize(flat, ROWS).scales
    assert [number for number, scale in enumerate(scales.tolist()) if not 0 <= scale < float("inf")] == [1]


@pytest.mark.parametrize("dtype", LEVELS)
def test_quantizing_again_changes_nothing(dtype: str) -> None:
    once = quantize(draw(3), ROWS, dtype)
    twice = quantize(once.dense(), ROWS, dtype)
    assert torch.equal(once.values, twice.values)
