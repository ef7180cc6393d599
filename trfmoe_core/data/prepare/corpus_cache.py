"""Prepares a node's corpus, or finds it in the cache: equal contents and options are tokenized once."""

import hashlib
import json
import shutil
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import chardet
import numpy as np

from trfmoe_core.atomic import locked
from trfmoe_core.config.data import DataConfig
from trfmoe_core.config.sources import SourceSettings
from trfmoe_core.counts import counted
from trfmoe_core.data.batches.bigram import ByteBigram
from trfmoe_core.data.batches.corpus import Corpus, CorpusSource
from trfmoe_core.data.batches.held_out import evaluation_pieces
from trfmoe_core.data.batches.store import Digests, read_store
from trfmoe_core.data.documents import clean as clean_rules
from trfmoe_core.data.documents.reports import FileReport, moved, printable, write_reports
from trfmoe_core.data.formats import base as format_rules
from trfmoe_core.data.prepare import shards as shard_files
from trfmoe_core.data.prepare.build import META, Progress, build, without
from trfmoe_core.data.prepare.held_out_record import HeldOutRecord, from_hex
from trfmoe_core.data.prepare.merge import BIGRAM_FILE, DOCUMENTS_FILE, SIDES
from trfmoe_core.data.prepare.split import in_both
from trfmoe_core.data.sources import OpenContext, OpenedSource, open_sources
from trfmoe_core.data.tokenizers import Tokenizer
from trfmoe_core.errors import DataError
from trfmoe_core.places import expand
from trfmoe_core.private import private_files, tighten

# Increase it whenever the same text gives other tokens or another layout on disk.
FORMAT = 3
EXTRACT = "extract.jsonl"
_META_KEYS = {"notes", "duplicates", "near_duplicates", "overlapping", "leaked", "besides", "earlier", "files"}
_ATTEMPTS = 5
CACHES = ("corpora", "extracted", "archives", "digests", "hub")
"""Folders of a cache folder that hold an owner's text, or what was made from it."""


@private_files()
def prepare_corpus(
    entries: Sequence[str | SourceSettings],
    config: DataConfig,
    tokenizer: Tokenizer,
    cache_dir: Path,
    progress: Progress = lambda what, done, total: None,
) -> Corpus:
    """Returns the corpus of a node's `data` entries, from the cache if it was prepared before.

    If several processes prepare the same corpus at once, one works and the others wait. A preparation that was killed
    continues where it stopped. A file that changes while it is read is read again; if it changes again it is left out.

    What is written can be read by this user alone.

    Args:
        entries: paths and sources.
        config: how text becomes tokens.
        tokenizer: the tokenizer.
        cache_dir: folder of the cache.
        progress: called with (what, done, total) during long work.

    Raises:
        DataError: a path is missing or unreadable, no file gave any text, or the cache cannot be written.
        RunFolderError: the cache belongs to another user.
    """
    cache_dir = expand(cache_dir)
    home = cache_dir / "corpora"
    record = HeldOutRecord(home)
    tighten(cache_dir / name for name in CACHES)
    changing: dict[Path, FileReport] = {}
    try:
        for attempt in range(_ATTEMPTS):
            sources = [
                without(source, changing) for source in open_sources(entries, OpenContext(config, cache_dir, progress))
            ]
            key = corpus_key(sources, config, tokenizer)
            folder = home / key
            home.mkdir(parents=True, exist_ok=True)
            with locked(home / f"{key}.lock"):
                meta = _read_meta(folder, len(sources), record.digests(_paths(sources)))
                fresh, lenient = not meta, attempt > 0
                changed = {} if meta else build(folder, sources, config, tokenizer, progress, record, lenient=lenient)
                if changed and (folder / META).exists():
                    # The corpus was built without these files, so its key is that of a folder without them.
                    sources = [without(source, changed) for source in sources]
                    key, folder, changed = *_renamed(folder, corpus_key(sources, config, tokenizer)), {}
                meta = meta or _read_meta(folder, len(sources), record.digests(()))
            if not changed:
                break
            # A file may have been written at that moment. One that changes a second time is left out.
            changing |= changed if attempt else {}
    except OSError as error:
        raise DataError(
            f"cache folder {printable(cache_dir)}: {error.strerror or error}; "
            "free some space or choose another cache_dir"
        ) from error
    if changed:
        raise DataError(
            f"{counted(len(changed), 'file')} changed again and again while being read, such as "
            f"{printable(min(changed))}; copy them first"
        )
    if meta is None:
        raise DataError(f"corpus {printable(folder)} was written and cannot be read back; check the disk")
    return replace(_opened(folder, key, meta, sources, config, tokenizer), fresh=fresh)


def corpus_key(sources: Sequence[OpenedSource], config: DataConfig, tokenizer: Tokenizer) -> str:
    """Returns a hex SHA-256 of everything that determines the stores: not paths, times, names and weights."""
    parts = {
        "format": [FORMAT, shard_files.FORMAT],
        "sources": [source.identity for source in sources],
        "config": config.model_dump(exclude={"tokenizer", *DataConfig.USE_ONLY}),
        "tokenizer": tokenizer.fingerprint,
        "readers": [unicodedata.unidata_version, chardet.__version__, format_rules.RULES, clean_rules.RULES],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode("utf-8")).hexdigest()


def _content_key(key: str, besides: Sequence[str]) -> str:
    """Returns the key of a corpus in which also the pieces `besides` are held out."""
    return hashlib.sha256("".join([key, *besides]).encode("ascii")).hexdigest() if besides else key


def _paths(sources: Sequence[OpenedSource]) -> set[str]:
    return {str(unit.file.path) for source in sources for unit in source.units}


def _renamed(folder: Path, key: str) -> tuple[str, Path]:
    """Renames the folder of a corpus to `key`, or deletes it if that corpus exists. Returns key and new folder."""
    target = folder.with_name(key)
    try:
        folder.rename(target)
    except OSError:
        shutil.rmtree(folder)
    return key, target


def _opened(
    folder: Path,
    key: str,
    meta: dict[str, Any],
    sources: Sequence[OpenedSource],
    config: DataConfig,
    tokenizer: Tokenizer,
) -> Corpus:
    reports = iter(FileReport(**report) for report in meta["files"])
    notes = [*([f"tokenizer {tokenizer.name}: {tokenizer.remark}"] if tokenizer.remark else []), *meta["notes"]]
    found = []
    for number, source in enumerate(sources):
        train, held_out = (read_store(folder, f"{number}.{side}") for side in SIDES)
        if not train.num_tokens:
            notes.append(f"source {number + 1} of {len(sources)}: no text of its own to train on; it takes no part")
            continue
        settings = source.settings
        files = [unit.file.shown for unit in source.units]
        found.append(CorpusSource(source.name, settings.weight, settings.on_end == "stop", train, held_out, files))
    if len(found) > 1:
        notes.append(_shares(found))
    corpus = Corpus(
        sources=found,
        files=[file.report or moved(next(reports), file.shown) for source in sources for file in source.files],
        notes=[*notes, *(note for source in sources for note in source.notes)],
        key=_content_key(key, meta["besides"]),
        duplicates=int(meta["duplicates"]),
        near_duplicates=int(meta["near_duplicates"]),
        overlapping=int(meta["overlapping"]),
        leaked=int(meta["leaked"]),
        bigram_bits_per_byte=0.0,
        extract=folder / EXTRACT,
        documents=np.load(folder / DOCUMENTS_FILE, mmap_mode="r", allow_pickle=False),
    )
    write_reports(corpus.extract, corpus.files)
    return replace(corpus, bigram_bits_per_byte=_bigram_bits(folder, corpus, config, tokenizer))


def _shares(sources: Sequence[CorpusSource]) -> str:
    """Returns the shares of the sources, without names: the coordinator reads this, and a name may be a path."""
    total = sum(source.weight for source in sources)
    shares = ", ".join(
        f"{100 * source.weight / total:.3g}% ({'stop' if source.stops else 'repeat'} at its end)" for source in sources
    )
    return f"{counted(len(sources), 'source')} share the training tokens: {shares}"


def _bigram_bits(folder: Path, corpus: Corpus, config: DataConfig, tokenizer: Tokenizer) -> float:
    stores, weights = corpus.held_out_stores()
    texts = (
        tokenizer.decode(stores[store].piece(piece).tolist()).encode("utf-8")
        for store, piece in evaluation_pieces(stores, weights, config.evaluation_tokens)
    )
    return ByteBigram(np.load(folder / BIGRAM_FILE, allow_pickle=False)).bits_per_byte(texts)


def _read_meta(folder: Path, num_sources: int, held_out_before: Digests) -> dict[str, Any] | None:
    """Returns what `build` wrote into `corpus.json`, or None if the corpus must be built.

    It must if it is missing or damaged, or trains on a piece that was since held out in another corpus.
    """
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        if not isinstance(meta, dict) or _META_KEYS - meta.keys():
            return None
        new = held_out_before[~in_both(held_out_before, from_hex(meta["earlier"]))]
        for number in range(num_sources):
            train, _ = (read_store(folder, f"{number}.{side}") for side in SIDES)
            if new.size and in_both(new, train.digests).any():
                return None
        for name in (DOCUMENTS_FILE, BIGRAM_FILE):
            np.load(folder / name, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, TypeError, EOFError, DataError):
        return None
    return meta
