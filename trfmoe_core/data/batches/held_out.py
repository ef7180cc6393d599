"""Chooses the held-out pieces of an evaluation and cuts them into windows, so that every token is predicted once.

Shapes: T = context, W = windows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trfmoe_core.data.batches.store import TokenStore
from trfmoe_core.errors import DataError

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """The windows of one evaluation.

    Attributes:
        tokens: (W, T + 1) int64; inputs are `[:, :-1]`, targets `[:, 1:]`.
        mask: (W, T) bool; False for targets that do not count: padding and bos.
        num_bytes: UTF-8 bytes of the predicted pieces. The loss in nats summed over all counted targets, divided by
            `ln 2 * num_bytes`, is bits per byte, which is comparable between tokenizers.
    """

    tokens: npt.NDArray[np.int64]
    mask: npt.NDArray[np.bool_]
    num_bytes: int


def evaluation_pieces(stores: Sequence[TokenStore], weights: Sequence[float], max_tokens: int) -> list[tuple[int, int]]:
    """Returns (store, piece) of the pieces to evaluate on: as many as fit into `max_tokens`, and at least one.

    The pieces of a store are taken in the order of their digests, which is a fair sample for any order of the files.
    The next piece comes from the store that lags behind its weight most. The choice is deterministic.

    Raises:
        DataError: there are no pieces.
    """
    found: list[tuple[npt.NDArray[np.float64], Ints, Ints, int]] = []
    for number, (store, weight) in enumerate(zip(stores, weights, strict=True)):
        order = np.argsort(store.digests[:, 0], kind="stable")[: max(1, max_tokens)]
        sizes = np.diff(store.piece_offsets)[order]
        found.append(((np.cumsum(sizes) - sizes / 2) / weight, order, sizes, number))
    due = np.concatenate([one[0] for one in found])
    pieces = np.concatenate([one[1] for one in found])
    sizes = np.concatenate([one[2] for one in found])
    owner = np.concatenate([np.full(one[1].size, one[3]) for one in found])
    if not due.size:
        raise DataError("an evaluation over 0 tokens; give the node some text")
    turn = np.argsort(due, kind="stable")
    fits = max(1, int(np.searchsorted(np.cumsum(sizes[turn]), max_tokens, side="right")))
    return list(zip(owner[turn[:fits]].tolist(), pieces[turn[:fits]].tolist(), strict=True))


def evaluation_windows(
    stores: Sequence[TokenStore], weights: Sequence[float], context: int, max_tokens: int
) -> EvaluationSet:
    """Returns windows over `evaluation_pieces`. Every token of a piece after its bos is predicted exactly once.

    Args:
        stores: the held-out pieces of every source.
        weights: share of every source.
        context: T.
        max_tokens: tokens of all pieces, at most.

    Raises:
        DataError: there are no pieces, or the context is not positive.
    """
    if context < 1:
        raise DataError(f"context {context} must be positive")
    chosen = evaluation_pieces(stores, weights, max_tokens)
    runs = [stores[store].piece(piece) for store, piece in chosen]
    starts = np.cumsum([0, *(run.size for run in runs)])
    end = int(starts[-1])
    windows = max(1, -(-(end - 1) // context))
    flat = np.full(windows * context + 1, int(runs[0][0]), dtype=np.int64)
    flat[:end] = np.concatenate(runs)
    counts = np.zeros(windows * context + 1, dtype=np.bool_)
    counts[:end] = True
    counts[starts[:-1]] = False
    rows = np.arange(windows)[:, None] * context + np.arange(context + 1)[None, :]
    num_bytes = sum(int(stores[store].piece_bytes[piece]) for store, piece in chosen)
    return EvaluationSet(tokens=flat[rows], mask=counts[rows[:, 1:]], num_bytes=num_bytes)
