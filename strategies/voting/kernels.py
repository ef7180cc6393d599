"""Arithmetic over the replicas of one block, in chunks that stay in cache from the first operation to the last.

The cost of a vote is memory traffic. So every function reads each replica once, in place, and needs one chunk of
scratch for each replica. Three replicas, the usual case, go through the loops of `compiled_kernels`, other numbers
through numpy. Replicas may be float32, bfloat16, int8 or int4 with scales. Arithmetic and results are float32.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from strategies.voting.compiled_kernels import median_of_three, survey_of_three
from trfmoe_core.quantize import Quantized
from trfmoe_core.wire import Replica

CHUNK = 262_144
"""Values of one chunk of up to three replicas: 1 MiB each, which stays in a core's share of the last-level cache.

Smaller chunks would stay in the second-level cache, but their number of calls makes a vote a tenth slower.
"""

_PROBE = 1024
_WIDE = 12  # From this number on, one matrix product is faster than one dot product for each pair.

Part = NDArray[np.float32]
Dots = list[list[float]]


class Chunks:
    """Equally long flat replicas, as float32 chunks in numpy's hands.

    Args:
        updates: The replicas; float32 memory is used in place, other types are widened into scratch chunk by chunk.
        where: The values to read; all when absent.
        private: Replicas whose parts shall be scratch, which may be overwritten.
    """

    def __init__(
        self, updates: Sequence[Replica], where: slice | None = None, *, private: Collection[int] = ()
    ) -> None:
        self.begin, self.end, _ = (where or slice(None)).indices(updates[0].numel())
        self.numel = self.end - self.begin
        self.size = min(self.numel, max(4096, CHUNK * 3 // max(3, len(updates))))
        self._updates = [update if isinstance(update, Quantized) else update.detach() for update in updates]
        self._parts = [
            update.numpy() if isinstance(update, Tensor) and update.dtype == torch.float32 else None
            for update in self._updates
        ]
        self._foreign = [i for i, part in enumerate(self._parts) if i in private or part is None]
        self._scratch = torch.from_numpy(np.empty((len(self._foreign), self.size), np.float32))

    def matrix(self, length: int) -> Part:
        """Returns the first values of the chunk at hand, one row for each replica that lies in scratch."""
        return self._scratch.numpy()[:, :length]

    def __iter__(self) -> Iterator[tuple[slice, list[Part]]]:
        """Yields where a chunk lies in the replicas, and its part of every replica."""
        scratch = self._scratch.numpy()
        for begin in range(self.begin, self.end, self.size):
            where = slice(begin, min(begin + self.size, self.end))
            length = where.stop - begin
            for row, i in enumerate(self._foreign):
                update, space = self._updates[i], self._scratch[row, :length]
                if isinstance(update, Quantized):
                    update.widen(space, begin)
                else:
                    space.copy_(update[where])
            parts = [whole[where] if whole is not None else scratch[0, :0] for whole in self._parts]
            for row, i in enumerate(self._foreign):
                parts[i] = scratch[row, :length]
            yield where, parts


def survey(
    updates: Sequence[Replica],
    factors: Sequence[float],
    result: Tensor | None = None,
    where: slice | None = None,
) -> tuple[list[float], Dots]:
    """Returns the replicas' norms and their inner products, `dots[i][j]` for i <= j, and leaves their mean in `result`.

    Args:
        updates: Two or more replicas.
        factors: What they are multiplied with in the mean, as in `mean`.
        result: Float32 memory for the mean, of the replicas' length; no mean is made when absent.
        where: The values to read and to write; all when absent.
    """
    count = len(updates)
    wide, three = count > _WIDE, count == 3
    chunks = Chunks(updates, where, private=range(count if wide else 0))
    sums = np.zeros((count, count))
    scales = np.array(factors, np.float32)
    spare = np.empty(chunks.size, np.float32)
    for place, parts in chunks:
        out = spare[: len(parts[0])] if result is None else result.numpy()[place]
        if three:
            a, b, c = parts
            survey_of_three(a, b, c, scales, out, sums)
            continue
        if wide:
            _add_gram(sums, chunks.matrix(len(parts[0])))
        else:
            _add_dots(sums, parts)
        if result is not None:
            _mean(parts, factors, out, spare)
    return np.sqrt(np.diag(sums)).tolist(), sums.tolist()


def mean(updates: Sequence[Replica], factors: Sequence[float], result: Tensor, where: slice | None = None) -> None:
    """Writes the sum of `factors[i] * updates[i]`, added in that order, by their number; of the values `where` only."""
    chunks = Chunks(updates, where)
    out, spare = result.numpy(), np.empty(chunks.size, np.float32)
    for place, parts in chunks:
        _mean(parts, factors, out[place], spare)


def median(
    updates: Sequence[Replica],
    scales: Sequence[float] | None = None,
    result: Tensor | None = None,
    where: slice | None = None,
) -> Tensor:
    """Returns the coordinate-wise median of `scales[i] * updates[i]`; equal to `numpy.median` bit for bit.

    Unlike numpy, it keeps the sign of a zero. Other numbers than three go through a sorting network, cut down to the
    exchanges that the median depends on.

    Args:
        updates: One or more replicas.
        scales: Their multipliers; all 1 when absent.
        result: Float32 memory to use, of the replicas' length; new when absent.
        where: The values to read and to write; all when absent.
    """
    result = empty(updates[0].numel()) if result is None else result
    count = len(updates)
    factors = np.array(scales or [1.0] * count, np.float32)
    chunks = Chunks(updates, where, private=range(0 if count == 3 else count))
    out, spare = result.numpy(), np.empty(0 if count == 3 else chunks.size, np.float32)
    for place, parts in chunks:
        if count == 3:
            a, b, c = parts
            median_of_three(a, b, c, factors, out[place])
        else:
            _median_of_many(parts, factors, out[place], spare[: len(parts[0])])
    return result


def norm(update: Replica, part: Sequence[slice] = (slice(None),)) -> float:
    """Returns the Euclidean norm of some ranges, by default of all values; not finite if any value is not.

    It is added over chunks in double precision.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # callers check the result
        return math.sqrt(
            sum(float(np.dot(values, values)) for where in part for _, (values,) in Chunks([update], where))
        )


def identical(one: Replica, other: Replica) -> bool:
    """Tells whether two replicas are equal; looks no further than the first chunk that differs."""
    if not _same(one[:_PROBE], other[:_PROBE]):
        return False
    return all(_same(one[i : i + CHUNK], other[i : i + CHUNK]) for i in range(0, one.numel(), CHUNK))


def begin_of(replica: Replica) -> bytes:
    """Returns the first values of a replica as bytes, the same for replicas that are equal."""
    return (replica[:_PROBE].float() + 0.0).numpy().tobytes()  # adding zero makes minus zero plus zero


def empty(numel: int) -> Tensor:
    """Returns new float32 memory. It comes from numpy, which asks for huge pages: 500 times fewer page faults."""
    return torch.from_numpy(np.empty(numel, np.float32))


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one, other) if one.dtype == other.dtype else torch.equal(one.float(), other.float())


def _add_dots(sums: NDArray[np.float64], parts: Sequence[Part]) -> None:
    for i, part in enumerate(parts):
        for j in range(i, len(parts)):
            sums[i, j] += float(np.dot(part, parts[j]))


def _add_gram(sums: NDArray[np.float64], matrix: Part) -> None:
    sums += np.triu(np.dot(matrix, matrix.T))


def _mean(parts: Sequence[Part], factors: Sequence[float], out: Part, spare: Part) -> None:
    terms = zip(parts, factors, strict=True)
    first, factor = next(terms)
    if factor != 1:
        first = np.multiply(first, factor, out=out)
    for part, factor in terms:
        if factor != 1:
            part = np.multiply(part, factor, out=spare[: len(part)])
        first = np.add(first, part, out=out)
    np.divide(first, len(parts), out=out)


def _median_of_many(parts: Sequence[Part], factors: Part, out: Part, spare: Part) -> None:
    for part, factor in zip(parts, factors, strict=True):
        if factor != 1:
            np.multiply(part, factor, out=part)
    rows, low = list(parts), spare
    for i, j, keep_low, keep_high in _network(len(rows)):
        if keep_low and keep_high:
            np.minimum(rows[i], rows[j], out=low)
            np.maximum(rows[i], rows[j], out=rows[j])
            rows[i], low = low, rows[i]
        elif keep_low:
            np.minimum(rows[i], rows[j], out=rows[i])
        else:
            np.maximum(rows[i], rows[j], out=rows[j])
    middle = len(rows) // 2
    if len(rows) % 2:
        np.copyto(out, rows[middle])
    else:
        np.add(rows[middle - 1], rows[middle], out=out)
        np.multiply(out, 0.5, out=out)


@cache
def _network(count: int) -> tuple[tuple[int, int, bool, bool], ...]:
    """Batcher's merge exchange (Knuth, volume 3, 5.2.2, algorithm M), cut down to what the median depends on."""
    exchanges = []
    top = step = 1 << max(0, (count - 1).bit_length() - 1)
    while step and count > 1:
        span, offset, distance = top, 0, step
        while True:
            exchanges += [(i, i + distance) for i in range(count - distance) if i & step == offset]
            if span == step:
                break
            distance, span, offset = span - step, span >> 1, step
        step >>= 1
    wanted, kept = {count // 2, (count - 1) // 2}, []
    for i, j in reversed(exchanges):
        if i in wanted or j in wanted:
            kept.append((i, j, i in wanted, j in wanted))
            wanted |= {i, j}
    return tuple(reversed(kept))
