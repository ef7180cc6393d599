"""Keeps near-duplicates from standing on both sides of the split, by the runs of words that pieces share.

A run is `RUN_WORDS` words in a row; case and blanks are ignored. Two sets of runs are compared by their hashes, as in
Broder's "On the resemblance and containment of documents" (1997); of much text only a sample of the hashes is compared.

Shapes: N = pieces of all shards, R = runs, H = different runs of held-out pieces.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from trfmoe_core.data.batches.store import Digests, Ints
from trfmoe_core.data.documents.clean import normal_form
from trfmoe_core.data.prepare.shards import Shard
from trfmoe_core.data.prepare.split import Flags, lowest

RUN_WORDS = 6
"""A changed word changes as many runs: of a piece with fewer than 17 words that may be more than half."""
SHARE = 0.5
"""A piece is a near-duplicate if this share of its runs stands on the other side."""
ATTEMPTS = ((1.0, 0.2), (0.1, 0.2), (0.0, 0.5))
"""(share of the held-out pieces that are used, share of the training text that may be left out), in this order."""
SAMPLED_BYTES = 1 << 26
"""From this much held-out text on, only a sample of the runs is compared."""

Hashes = npt.NDArray[np.uint64]

_BASE, _INVERSE = 0x9E3779B97F4A7C15, pow(0x9E3779B97F4A7C15, -1, 1 << 64)
_BLOCK_CHARACTERS = 1 << 20
# Scripts that are written without blanks between words: every letter counts as a word.
_UNSPACED = (
    (0x0E00, 0x0F00),
    (0x1000, 0x10A0),
    (0x1780, 0x1800),
    (0x2E80, 0xAC00),
    (0xF900, 0xFB00),
    (0x20000, 0x32000),
)


@dataclass(frozen=True, eq=False)
class Separation:
    """Two sides of a split.

    Attributes:
        train: (N,) pieces to train on.
        held_out: (N,) pieces to evaluate on.
        overlapping: held-out pieces that are near-duplicates of training text, because all text repeats itself.
    """

    train: Flags
    held_out: Flags
    overlapping: int = 0


def separate(shards: Sequence[Shard], num_bytes: Ints, digests: Digests, train: Flags, held_out: Flags) -> Separation:
    """Returns the sides without near-duplicates of each other.

    Training pieces that are near-duplicates of held-out text are left out, if they are few; if they are many, the text
    is repetitive, and the held-out pieces are left out instead. If that leaves nothing to evaluate on, fewer pieces
    are held out. If a single one is too many, nothing is left out.

    Args:
        shards: all shards.
        num_bytes: (N,) UTF-8 bytes of every piece.
        digests: (N, 2) digest of every piece.
        train: (N,) pieces to train on, at least one.
        held_out: (N,) pieces to evaluate on, at least one.
    """
    overlapping, tried = 0, 0
    for share, limit in ATTEMPTS:
        chosen = held_out & lowest(digests, held_out, share)
        if int(chosen.sum()) == tried and share:
            continue
        tried = int(chosen.sum())
        table = _RunTable(shards, chosen, int(num_bytes[chosen].sum()))
        near, seen_elsewhere, seen = table.compare(shards, train)
        few = num_bytes[near].sum() <= limit * num_bytes[train].sum()
        repeated = table.repeated(seen_elsewhere if few else seen, len(train))
        overlapping = overlapping or int(repeated.sum())
        if not repeated[chosen].all():
            return Separation(train & ~near if few else train, chosen & ~repeated)
    return Separation(train, held_out, overlapping)


class _RunTable:
    """The runs of some pieces, to be looked up.

    Attributes:
        hashes: (H,) sorted.
    """

    def __init__(self, shards: Sequence[Shard], pieces: Flags, size_bytes: int) -> None:
        """Reads the runs of these `pieces`, which have `size_bytes` bytes."""
        scale = 1 + size_bytes // SAMPLED_BYTES
        self._below = np.uint64((1 << 64) // scale - (scale == 1))
        hashes: list[Hashes] = [np.zeros(0, dtype=np.uint64)]
        owners: list[Ints] = [np.zeros(0, dtype=np.int64)]
        for numbers, texts in _texts(shards, pieces):
            found, owner = self._sample(*runs(texts))
            hashes.append(found)
            owners.append(numbers[owner])
        self._owners = np.concatenate(owners)
        self.hashes, self._entries = np.unique(np.concatenate(hashes), return_inverse=True)
        # Most runs of other text are not in the table, and a bit by their first bits tells so at once.
        bits = min(28, max(16, 4 + int(self.hashes.size).bit_length()))
        self._shift = np.uint64(64 - bits)
        self._maybe = np.zeros(1 << bits, dtype=np.bool_)
        self._maybe[self.hashes >> self._shift] = True

    def compare(self, shards: Sequence[Shard], pieces: Flags) -> tuple[Flags, Flags, Flags]:
        """Returns which of `pieces` are near-duplicates (N,), and which runs other pieces (H,) and all (H,) have."""
        near = np.zeros(len(pieces), dtype=np.bool_)
        seen_elsewhere, seen = (np.zeros(self.hashes.size, dtype=np.bool_) for _ in range(2))
        if not self.hashes.size:
            return near, seen_elsewhere, seen
        for numbers, texts in _texts(shards, pieces):
            found, owners = self._sample(*runs(texts))
            maybe = np.flatnonzero(self._maybe[found >> self._shift])
            places = np.minimum(np.searchsorted(self.hashes, found[maybe]), self.hashes.size - 1)
            right = self.hashes[places] == found[maybe]
            places, hit = places[right], owners[maybe[right]]
            is_near = _mostly(hit, owners, len(texts))
            near[numbers[is_near]] = True
            seen[places] = True
            seen_elsewhere[places[~is_near[hit]]] = True
        return near, seen_elsewhere, seen

    def repeated(self, seen: Flags, num_pieces: int) -> Flags:
        """Returns (N,) True for pieces of the table most of whose runs are `seen` (H,)."""
        return _mostly(self._owners[seen[self._entries]], self._owners, num_pieces)

    def _sample(self, hashes: Hashes, owners: Ints) -> tuple[Hashes, Ints]:
        kept = hashes <= self._below
        return hashes[kept], owners[kept]


def _mostly(hits: Ints, owners: Ints, num_owners: int) -> Flags:
    """Returns for every owner whether `SHARE` of its entries in `owners` are in `hits`."""
    total = np.bincount(owners, minlength=num_owners)
    return (total > 0) & (np.bincount(hits, minlength=num_owners) >= SHARE * total)


def _texts(shards: Sequence[Shard], pieces: Flags) -> Any:
    """Yields (numbers, texts) of the chosen pieces of every shard, about a million characters at a time."""
    at = 0
    for shard in shards:
        (sizes,) = shard.load("bytes")
        chosen = np.flatnonzero(pieces[at : at + sizes.size])
        if chosen.size:
            (text,) = shard.load("text")
            data, ends = text.tobytes(), np.cumsum(sizes)
            block = (ends[chosen] - 1) // _BLOCK_CHARACTERS
            for part in np.split(chosen, np.flatnonzero(np.diff(block)) + 1):
                yield at + part, [data[int(ends[one] - sizes[one]) : int(ends[one])].decode("utf-8") for one in part]
        at += sizes.size


def runs(texts: Sequence[str]) -> tuple[Hashes, Ints]:
    """Returns the hash (R,) of every run of words, and the number (R,) of its text.

    A run's hash is a polynomial in its letters modulo 2^64, mixed: the difference of two prefix sums.
    """
    # Of ASCII text blanks are left out below, which is faster than `normal_form`.
    normal = [text.lower() if text.isascii() else normal_form(text) for text in texts]
    codes, first, ends = _words("\n".join(normal))
    if first.size < RUN_WORDS:
        return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int64)
    owners = np.searchsorted(np.cumsum([len(text) + 1 for text in normal]), first, side="right")
    # The same places when blanks are not counted.
    borders = np.concatenate([[0], np.cumsum(ends - first)])
    whole = owners[: 1 - RUN_WORDS] == owners[RUN_WORDS - 1 :]
    begin, end = borders[:-RUN_WORDS][whole], borders[RUN_WORDS:][whole]
    powers, inverses = _powers(1 << int(codes.size).bit_length())
    sums = np.zeros(codes.size + 1, dtype=np.uint64)
    np.cumsum(codes * powers[: codes.size], out=sums[1:])
    hashes = (sums[end] - sums[begin]) * inverses[begin]
    # The low bits of the polynomial depend on few bits of the text; multiplying and shifting mixes all of them.
    for factor, shift in ((0xFF51AFD7ED558CCD, 33), (0xC4CEB9FE1A85EC53, 29)):
        hashes = (hashes ^ (hashes >> np.uint64(shift))) * np.uint64(factor)
    return hashes ^ (hashes >> np.uint64(32)), owners[: 1 - RUN_WORDS][whole]


def _words(text: str) -> tuple[Any, Ints, Ints]:
    """Returns the letters of `text` without blanks, and where in `text` every word begins and ends."""
    codes: Any
    if text.isascii():
        codes = np.frombuffer(text.encode("ascii"), dtype=np.uint8)
        blank = codes <= ord(" ")
        alone = np.zeros(0, dtype=np.bool_)
    else:
        codes = np.frombuffer(text.encode("utf-32-le", "replace"), dtype=np.uint32)
        blank = codes <= ord(" ")
        alone = np.zeros(codes.size, dtype=np.bool_)
        for low, high in _UNSPACED:
            alone |= (codes >= low) & (codes < high)
    # Between two characters is a border if one of them is blank or a word of its own.
    border = np.ones(codes.size + 1, dtype=np.bool_)
    border[1:-1] = blank[1:] | blank[:-1]
    if alone.size:
        border[1:-1] |= alone[1:] | alone[:-1]
    letter = ~blank
    return codes[letter], np.flatnonzero(border[:-1] & letter), np.flatnonzero(border[1:] & letter) + 1


@lru_cache(maxsize=2)
def _powers(size: int) -> tuple[Hashes, Hashes]:
    """Returns the powers 0 to `size` - 1 of the hash's base, and those of its inverse."""
    found = []
    for factor in (_BASE, _INVERSE):
        powers = np.full(size, factor, dtype=np.uint64)
        powers[0] = 1
        found.append(np.cumprod(powers, dtype=np.uint64))
    return found[0], found[1]
