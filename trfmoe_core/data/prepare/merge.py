"""Merges shards into token stores: leaves out duplicates, splits off held-out text, counts the byte bigram.

Shapes: N = pieces of all sources, in their order.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trfmoe_core.config.data import DataConfig
from trfmoe_core.data.batches.bigram import ByteBigram
from trfmoe_core.data.batches.store import Digests, Ints, StoreWriter, read_store
from trfmoe_core.data.prepare.near import Separation, separate
from trfmoe_core.data.prepare.shards import PLACE_BYTES, Shard
from trfmoe_core.data.prepare.split import Flags, first_of_each, in_both, is_held_out, lowest

SIDES = ("train", "held_out")
DOCUMENT = np.dtype([("unit", "<i8"), ("place", f"S{PLACE_BYTES}")])
DOCUMENTS_FILE = "documents.npy"
BIGRAM_FILE = "bigram.npy"
BIGRAM_BYTES = 1 << 26
"""The bigram counts at most this much training text: more would not change the printed digits."""


@dataclass
class Merged:
    """The result of merging.

    Attributes:
        duplicates: pieces that were left out because the same text came before.
        near_duplicates: pieces that were left out because they are nearly the same as one of the other side.
        overlapping: held-out pieces that are nearly the same as training text; there are some only if all of the
            text repeats itself.
        held_out: (M, 2) digests of the held-out pieces.
        besides: (K, 2) digests of those of them that are above the threshold of the split by hash.
        leaked: held-out pieces that are also in the training text, counted in the written stores; must be 0.
    """

    duplicates: int = 0
    near_duplicates: int = 0
    overlapping: int = 0
    held_out: Digests = field(default_factory=lambda: np.zeros((0, 2), dtype=np.uint64))
    besides: Digests = field(default_factory=lambda: np.zeros((0, 2), dtype=np.uint64))
    leaked: int = 0


def merge(
    folder: Path, sources: Sequence[Sequence[Shard]], vocab_size: int, config: DataConfig, earlier: Digests
) -> Merged | None:
    """Writes the stores `<source>.<side>`, the table of documents and the bigram's counts into `folder`.

    Args:
        folder: an existing folder.
        sources: the shards of every source.
        vocab_size: ids are below it.
        config: which fraction of the pieces is held out, and what is left out.
        earlier: (M, 2) digests of pieces that were held out before (`held_out_record`).

    Returns:
        None if there are fewer than two different pieces: too few to train on some and hold out others.
    """
    shards = [shard for source in sources for shard in source]
    tables = [shard.load("bytes", "digests") for shard in shards]
    num_bytes = np.concatenate([np.zeros(0, dtype=np.int64), *(table[0] for table in tables)])
    digests = np.concatenate([np.zeros((0, 2), dtype=np.uint64), *(table[1] for table in tables)])
    first = first_of_each(digests)
    if int(first.sum()) < 2:
        return None
    kept = first if config.deduplicate else np.ones_like(first)
    held_out = split(digests, config.held_out, earlier)
    sides = Separation(kept & ~held_out, kept & held_out)
    if config.separate_near_duplicates:
        sides = separate(shards, num_bytes, digests, sides.train, sides.held_out)
    chosen = digests[held_out & first]
    merged = Merged(
        duplicates=int((~kept).sum()),
        near_duplicates=int((kept & ~sides.train & ~sides.held_out).sum()),
        overlapping=sides.overlapping,
        held_out=chosen,
        besides=chosen[~is_held_out(chosen, config.held_out)],
    )
    _write_stores(folder, sources, vocab_size, sides)
    _write_bigram(folder, shards, sides.train, num_bytes)
    train, held = (
        np.concatenate([read_store(folder, f"{number}.{side}").digests for number in range(len(sources))])
        for side in SIDES
    )
    merged.leaked = int(in_both(held, train).sum())
    return merged


def split(digests: Digests, fraction: float, earlier: Digests) -> Flags:
    """Returns (N,) True for pieces to hold out; at least one piece is True, and at least one with another text False.

    A piece is held out if its digest is below the threshold, or if it was held out before. If there is none, those
    with the lowest digests are.
    """
    every = np.ones(len(digests), dtype=np.bool_)
    held_out = is_held_out(digests, fraction) | in_both(digests, earlier)
    if not held_out.any():
        held_out = lowest(digests, every, min(fraction, 0.5))
    if held_out.all():
        # Rather one that was not held out before.
        fresh = ~in_both(digests, earlier)
        held_out &= ~lowest(~digests, fresh if fresh.any() else every, 0.0)
    return held_out


def _write_stores(folder: Path, sources: Sequence[Sequence[Shard]], vocab_size: int, sides: Separation) -> None:
    documents: list[npt.NDArray[Any]] = [np.zeros(0, dtype=DOCUMENT)]
    at, num_documents = 0, 0
    for number, shards in enumerate(sources):
        with (
            StoreWriter(folder, f"{number}.train", vocab_size) as train,
            StoreWriter(folder, f"{number}.held_out", vocab_size) as held,
        ):
            for shard in shards:
                tokens, sizes, num_bytes, digests, owners, units, places = shard.load(
                    "tokens", "sizes", "bytes", "digests", "documents", "units", "places"
                )
                here = slice(at, at + sizes.size)
                for writer, side in ((train, sides.train[here]), (held, sides.held_out[here])):
                    chosen = tokens[np.repeat(side, sizes)]
                    writer.append(chosen, sizes[side], num_bytes[side], digests[side], owners[side] + num_documents)
                table = np.zeros(units.size, dtype=DOCUMENT)
                table["unit"], table["place"] = units, places
                documents.append(table)
                at += sizes.size
                num_documents += units.size
    with (folder / DOCUMENTS_FILE).open("wb") as file:
        np.save(file, np.concatenate(documents), allow_pickle=False)


def _write_bigram(folder: Path, shards: Sequence[Shard], train: Flags, num_bytes: Ints) -> None:
    """Counts the byte pairs of the training text; of every k-th piece if there is very much of it."""
    step = max(1, -(-int(num_bytes[train].sum()) // BIGRAM_BYTES))
    counted = np.zeros_like(train)
    counted[np.flatnonzero(train)[::step]] = True
    bigram = ByteBigram()
    at = 0
    for shard in shards:
        (sizes,) = shard.load("bytes")
        here = counted[at : at + sizes.size]
        at += sizes.size
        if here.any():
            (text,) = shard.load("text")
            data, ends = text.tobytes(), np.cumsum(sizes)
            bigram.fit(data[int(ends[one] - sizes[one]) : int(ends[one])] for one in np.flatnonzero(here))
    with (folder / BIGRAM_FILE).open("wb") as file:
        np.save(file, bigram.counts_PB, allow_pickle=False)


def first_piece(sources: Sequence[Sequence[Shard]]) -> tuple[int, int, str]:
    """Returns source, unit and text of the first piece; an empty text if there is none."""
    for source, shards in enumerate(sources):
        for shard in shards:
            sizes, text, owners, units = shard.load("bytes", "text", "documents", "units")
            if sizes.size:
                return source, int(units[owners[0]]), text.tobytes()[: int(sizes[0])].decode("utf-8")
    return 0, 0, ""


def halves(text: str) -> list[str]:
    """Returns a text in two halves, cut near its middle at the end of a line or word if there is one."""
    middle = len(text) // 2
    border = max(text.rfind(mark, middle // 2, middle + middle // 2) for mark in "\n ")
    if border <= 0:
        border = middle
    return [text[:border].rstrip(), text[border:].lstrip()]
