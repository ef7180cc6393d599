"""Small stores whose tokens are all different, so that every row can be told."""

import numpy as np

from trfmoe_core.data.batches.store import TokenStore

BOS = 60_000


def make_store(sizes: list[int], first: int = 0) -> TokenStore:
    """Returns pieces of these sizes without their bos; tokens count on from `first`."""
    tokens, offsets, at = [], [0], first
    for size in sizes:
        tokens += [BOS, *range(at, at + size)]
        offsets.append(len(tokens))
        at += size
    digests = np.random.default_rng(first).integers(0, 2**64, (len(sizes), 2), dtype=np.uint64)
    return TokenStore(
        tokens=np.array(tokens, np.uint16),
        piece_offsets=np.array(offsets, np.int64),
        piece_bytes=np.array(sizes, np.int64) * 3,
        digests=digests,
        documents=np.arange(len(sizes)),
    )
