"""Finds duplicate pieces, and decides which pieces are held out.

Shapes: N = pieces.
"""

import hashlib

import numpy as np
import numpy.typing as npt

from trfmoe_core.data.batches.store import Digests
from trfmoe_core.data.documents.clean import normal_form

Flags = npt.NDArray[np.bool_]


def digest(piece: str) -> bytes:
    """Returns a digest of 16 bytes that ignores case and blanks: duplicates have equal digests."""
    return hashlib.blake2b(normal_form(piece).encode("utf-8", "replace"), digest_size=16).digest()


def as_numbers(digests: bytes) -> Digests:
    """Returns the concatenated digests of N pieces as (N, 2) numbers that sort like the bytes."""
    return np.frombuffer(digests, dtype=">u8").astype(np.uint64).reshape(-1, 2)


def first_of_each(digests: Digests) -> Flags:
    """Returns (N,) True for the first occurrence of every digest."""
    order = np.lexsort((digests[:, 1], digests[:, 0]))
    ordered = digests[order]
    new = np.ones(len(order), dtype=np.bool_)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    first = np.zeros(len(order), dtype=np.bool_)
    # lexsort is stable: of equal digests the first occurrence comes first.
    first[order[new]] = True
    return first


def is_held_out(digests: Digests, fraction: float) -> Flags:
    """Returns (N,) True for held-out pieces. Depends on the digests only: the same on every node, in any order."""
    return digests[:, 0] < np.uint64(min(int(fraction * 2.0**64), 2**64 - 1))


def lowest(digests: Digests, among: Flags, fraction: float) -> Flags:
    """Returns (N,) True for the lowest of the different digests `among` (N,): a fraction of them, at least one.

    Also pieces outside of `among` are True if they have the digest of one that is.
    """
    found = digests[among]
    found = found[first_of_each(found)]
    number = max(1, round(fraction * len(found)))
    return in_both(digests, found[np.lexsort((found[:, 1], found[:, 0]))][:number])


def in_both(one: Digests, other: Digests) -> Flags:
    """Returns for every digest of `one` whether it is in `other` too."""
    both = np.concatenate([other, one])
    order = np.lexsort((both[:, 1], both[:, 0]))
    ordered = both[order]
    new = np.ones(len(order), dtype=np.bool_)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    # The sort is stable: of equal digests those of `other` come first.
    seen = (order < len(other))[np.flatnonzero(new)][np.cumsum(new) - 1]
    found = np.zeros(len(order), dtype=np.bool_)
    found[order] = seen
    return found[len(other) :]
