"""Merges shards into token stores: leaves out duplicates, separates held-out text, counts the byte bigram.

Shapes: N = pieces of all sources, in their order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trfmoe_core.data.batches.bigram import ByteBigram
from trfmoe_core.data.batches.store import Ints, StoreWriter, read_store
from trfmoe_core.data.prepare.shards import PLACE_BYTES, Shard
from trfmoe_core.data.prepare.split import Flags, first_of_each, in_both, is_held_out, last_tenth

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
        last_tenth_held_out: True if one side of the split by hash was empty, so that the last tenth is held out.
        leaked: held-out pieces that are also in the training text, counted in the written stores; must be 0.
    """

    duplicates: int = 0
    last_tenth_held_out: bool = False
    leaked: int = 0


def merge(
    folder: Path, sources: Sequence[Sequence[Shard]], vocab_size: int, fraction: float, deduplicate: bool
) -> Merged | None:
    """Writes the stores `<source>.<side>`, the table of documents and the bigram's counts into `folder`.

    Args:
        folder: an existing folder.
        sources: the shards of every source.
        vocab_size: ids are below it.
        fraction: fraction of the pieces to hold out.
        deduplicate: whether to leave out pieces whose text came before.

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
    kept = first if deduplicate else np.ones_like(first)
    merged = Merged()
    held_out = is_held_out(digests, fraction)
    if held_out[kept].all() or not held_out[kept].any():
        # A split by position would put duplicates on both sides, so they are left out in any case.
        merged.last_tenth_held_out, kept = True, first
        held_out[kept] = last_tenth(num_bytes[kept])
    merged.duplicates = int((~kept).sum())
    _write_stores(folder, sources, vocab_size, kept, held_out)
    _write_bigram(folder, shards, kept & ~held_out, num_bytes)
    train, held = (
        np.concatenate([read_store(folder, f"{number}.{side}").digests for number in range(len(sources))])
        for side in SIDES
    )
    merged.leaked = int(in_both(held, train).sum())
    return merged


def _write_stores(
    folder: Path, sources: Sequence[Sequence[Shard]], vocab_size: int, kept: Flags, held_out: Flags
) -> None:
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
                for writer, side in ((train, kept[here] & ~held_out[here]), (held, kept[here] & held_out[here])):
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
