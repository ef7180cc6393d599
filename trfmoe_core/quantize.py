"""Quantizes float32 to int8 or int4 with one scale a row: a quarter or an eighth of the bytes.

A row runs along a tensor's last dimension. Its largest magnitude becomes 127 or 7, and zero stays zero. In int4 two
values share a byte, the first in its lower half, each with 8 added. All steps are single IEEE operations in a fixed
order, so that every machine reads the same values from the same bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import prod

import torch
from torch import Tensor

LEVELS = {"int8": 127, "int4": 7}
"""Type -> the integer that a row's largest magnitude becomes."""

LEAST = 1e-30
"""A row whose largest magnitude is below this becomes zero, because the inverse of its scale would overflow."""

PIECE = 1 << 18
"""Values that are processed at a time, so that they stay in the processor's cache between the steps."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows of one tensor in its flat block; `first` is the number of its first row among all rows of the block."""

    offset: int
    count: int
    width: int
    first: int


@cache
def rows_of(shapes: tuple[tuple[int, ...], ...]) -> tuple[Rows, ...]:
    """Returns the rows of the tensors of a flat block, whose shapes are given in order."""
    rows: list[Rows] = []
    offset = first = 0
    for shape in shapes:
        width = shape[-1] if shape else 1
        count = prod(shape[:-1]) if width else 0
        rows.append(Rows(offset=offset, count=count, width=width, first=first))
        offset += count * width
        first += count
    return tuple(rows)


def num_rows(rows: Sequence[Rows]) -> int:
    """Returns the number of rows, which is also the number of scales."""
    return sum(part.count for part in rows)


def num_bytes(numel: int, dtype: str) -> int:
    """Returns the bytes of `numel` values, without their scales."""
    return numel if dtype == "int8" else (numel + 1) // 2


class Quantized:
    """A flat vector in int8 or int4, which is converted to float32 piece by piece when it is read.

    Args:
        values: Flat int8, or uint8 with two int4 values each; it may be a mapped file.
        scales: Float32, one a row.
        rows: The rows of the vector.
    """

    def __init__(self, values: Tensor, scales: Tensor, rows: tuple[Rows, ...]) -> None:
        self.values, self.scales, self.rows = values, scales, rows
        self._numel = sum(part.count * part.width for part in rows)

    def numel(self) -> int:
        """Returns the number of values."""
        return self._numel

    def __getitem__(self, where: slice) -> Tensor:
        """Returns a copy of a piece in float32."""
        begin, end, _ = where.indices(self.numel())
        return self.widen(torch.empty(max(0, end - begin)), begin)

    def dense(self) -> Tensor:
        """Returns all values as float32."""
        return self.widen(torch.empty(self.numel()))

    def widen(self, out: Tensor, begin: int = 0) -> Tensor:
        """Fills the flat float32 tensor `out` with the values from `begin` on, and returns it."""
        end = begin + out.numel()
        if self.values.dtype == torch.int8:
            out.copy_(self.values[begin:end])
        else:
            pairs = self.values[begin // 2 : (end + 1) // 2]
            both = torch.stack((pairs & 15, pairs >> 4), dim=1).view(-1)
            out.copy_(both[begin % 2 : begin % 2 + len(out)]).sub_(8)
        for part in self.rows:
            low, high = max(begin, part.offset), min(end, part.offset + part.count * part.width)
            if low >= high:
                continue
            place = low
            while place < high:
                row, column = divmod(place - part.offset, part.width)
                whole = (high - place) // part.width
                scale = self.scales[part.first + row]
                if column or not whole:
                    stop = min(high, place + part.width - column)
                    out[place - begin : stop - begin].mul_(scale)
                else:
                    step = max(1, PIECE // part.width)
                    stop = place + min(whole, step) * part.width
                    several = self.scales[part.first + row : part.first + row + min(whole, step), None]
                    out[place - begin : stop - begin].view(-1, part.width).mul_(several)
                place = stop
        return out


def quantize(flat: Tensor, rows: tuple[Rows, ...], dtype: str = "int8", values: Tensor | None = None) -> Quantized:
    """Quantizes a flat float32 vector.

    A row with a value that is not finite gets a scale that is not finite.

    Args:
        flat: The vector.
        rows: Its rows.
        dtype: A key of `LEVELS`.
        values: Where to write the result, `num_bytes` long: int8, or uint8 for int4. None: new memory.
    """
    levels = LEVELS[dtype]
    whole = torch.empty(flat.numel(), dtype=torch.int8) if values is None or dtype != "int8" else values
    scales = torch.empty(num_rows(rows))
    for part in rows:
        place = slice(part.offset, part.offset + part.count * part.width)
        source, target = (vector[place].view(part.count, part.width) for vector in (flat, whole))
        step = max(1, PIECE // max(1, part.width))
        scratch = torch.empty(min(step, part.count), part.width)
        for begin in range(0, part.count, step):
            piece = source[begin : begin + step]
            spare = scratch[: len(piece)]
            largest = torch.abs(piece, out=spare).amax(dim=1)
            largest[largest < LEAST] = 0.0
            scales[part.first + begin : part.first + begin + len(piece)] = largest / levels
            inverse = torch.where(largest > 0, levels / largest, 0.0)
            target[begin : begin + step].copy_(torch.mul(piece, inverse[:, None], out=spare).round_())
    if dtype == "int8":
        return Quantized(whole, scales, rows)
    packed = torch.empty(num_bytes(flat.numel(), dtype), dtype=torch.uint8) if values is None else values
    shifted = whole.view(torch.uint8).add_(8)
    packed.copy_(shifted[::2])
    packed[: flat.numel() // 2].bitwise_or_(shifted[1::2] << 4)
    return Quantized(packed, scales, rows)
