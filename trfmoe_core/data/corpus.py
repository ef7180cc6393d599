"""Files to token stores: read, clean, cut, deal, tokenize, once per content, and kept where it is found again."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trfmoe_core.atomic import sync_folder, write_text
from trfmoe_core.config.schema import DataConfig
from trfmoe_core.data.baseline import ByteBigram
from trfmoe_core.data.documents import FileReport, moved, printable
from trfmoe_core.data.formats.base import Reading
from trfmoe_core.data.pieces import PieceFile
from trfmoe_core.data.sources import Context, Source, SourceSettings, open_sources
from trfmoe_core.data.split import Deal, cut, digest
from trfmoe_core.data.store import TokenStore, read_store, write_store
from trfmoe_core.data.tokenizer import Tokenizer
from trfmoe_core.errors import DataError

# Raise it whenever the same files would give other tokens or another layout on disk.
FORMAT = 1
_META = "corpus.json"
_LISTED_FILES = 40


@dataclass(frozen=True, eq=False)
class Corpus:
    """A node's text as tokens.

    Attributes:
        train: pieces to train on, in the files' order.
        held_out: pieces to evaluate on, in the order of their hashes: any prefix is a fair sample.
        files: one report for every file that was found.
        notes: what the owner should know, e.g. that the split had to be mended.
        key: SHA-256 of the files' bytes, the options and the tokenizer; the name under which it is cached.
        bigram_bits_per_byte: what an add-one byte bigram of `train` pays on the pieces that an evaluation of
            `evaluation_tokens` uses.
    """

    train: TokenStore
    held_out: TokenStore
    files: list[FileReport]
    notes: list[str]
    key: str
    bigram_bits_per_byte: float


def prepare_corpus(
    entries: Sequence[str | SourceSettings], config: DataConfig, tokenizer: Tokenizer, cache_dir: Path
) -> Corpus:
    """Returns the corpus of a node's `data` entries, from `cache_dir` where it was prepared before.

    Several processes may prepare the same corpus at once: one works, the others wait for it.

    Raises:
        DataError: a path is missing or unreadable, no file gave any text, or the cache cannot be written.
    """
    cache_dir = Path(cache_dir).expanduser()
    home = cache_dir / "corpora"
    try:
        sources = open_sources(entries, Context(config, cache_dir))
        key = corpus_key(sources, config, tokenizer)
        folder = home / key
        home.mkdir(parents=True, exist_ok=True)
        with _locked(home / f"{key}.lock"):
            meta = _read_meta(folder)
            if meta is None:
                _build(folder, sources, config, tokenizer)
                meta = _read_meta(folder)
    except OSError as error:
        raise DataError(
            f"cache folder {printable(cache_dir)}: {error.strerror or error}; "
            "free some space or choose another cache_dir"
        ) from error
    if meta is None:
        raise DataError(f"corpus {printable(folder)} was written and cannot be read back; check the disk")
    reports = iter(FileReport(**report) for report in meta["files"])
    return Corpus(
        train=read_store(folder, "train"),
        held_out=read_store(folder, "held_out"),
        files=[file.report or moved(next(reports), file.path) for source in sources for file in source.files],
        notes=list(meta["notes"]),
        key=key,
        bigram_bits_per_byte=float(meta["bigram_bits_per_byte"]),
    )


def corpus_key(sources: Sequence[Source], config: DataConfig, tokenizer: Tokenizer) -> str:
    """Returns a hex SHA-256 of everything that decides the tokens: no path, no time, no name."""
    parts = {
        "format": FORMAT,
        "sources": [source.identity for source in sources],
        "config": config.model_dump(exclude={"tokenizer"}),
        "tokenizer": tokenizer.fingerprint,
        "readers": [unicodedata.unidata_version],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode("utf-8")).hexdigest()


def describe_files(files: Sequence[FileReport]) -> str:
    """Returns a count of the statuses and one line a file, those with a problem first, the longest lists cut off."""
    counts = Counter(report.status for report in files)
    ordered = sorted(files, key=lambda report: report.status == "ok")
    lines = [f"  {report.path}: {report.status}{': ' * bool(report.detail)}{report.detail}" for report in ordered]
    left = len(lines) - _LISTED_FILES
    more = [f"  and {left} more"] if left > 0 else []
    total = ", ".join(f"{number} {status}" for status, number in sorted(counts.items()))
    return "\n".join([f"{len(files)} files: {total or 'none'}", *lines[:_LISTED_FILES], *more])


def _build(folder: Path, sources: Sequence[Source], config: DataConfig, tokenizer: Tokenizer) -> None:
    """Writes the corpus into a folder beside the final one, then renames it: it is there whole or not at all."""
    shutil.rmtree(folder, ignore_errors=True)
    for stale in folder.parent.glob(f".{folder.name}.*.tmp"):
        shutil.rmtree(stale, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".tmp"))
    try:
        deal = Deal(config.held_out)
        with PieceFile(temporary / "pieces") as pieces:
            reports = _read_all(sources, config, deal, pieces)
            where = "; ".join(source.name for source in sources)
            meta = _write_stores(temporary, config, tokenizer, deal, pieces, reports, where)
        (temporary / "pieces").unlink()
        files = [file for source in sources for file in source.files]
        meta["files"] = [asdict(report) for file, report in zip(files, reports, strict=True) if file.report is None]
        write_text(temporary / _META, json.dumps(meta))
        sync_folder(temporary)
        temporary.rename(folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _read_all(sources: Sequence[Source], config: DataConfig, deal: Deal, pieces: PieceFile) -> list[FileReport]:
    reports = []
    for source in sources:
        parts = []
        for unit in source.units:
            reading = Reading(unit)
            for document in reading:
                for piece in cut(document.text, config.piece_bytes):
                    if deal.add(piece):
                        pieces.append(piece)
            parts.append(reading.report)
        reports += source.reports(parts)
    return reports


def _write_stores(
    folder: Path,
    config: DataConfig,
    tokenizer: Tokenizer,
    deal: Deal,
    pieces: PieceFile,
    reports: Sequence[FileReport],
    where: str,
) -> dict[str, Any]:
    notes = []
    if len(pieces) == 1:
        deal = _cut_in_two(pieces, deal)
        notes.append("a single piece of text: it was cut in two, and the second half is held out")
    if len(pieces) < 2:
        raise DataError(
            f"no text to train on and to hold out in {where}; give PDF, parquet, JSONL or text files with more text; "
            f"{describe_files(reports)}"
        )
    if deal.ensure_both_sides():
        notes.append("one side of the split by hash was empty: the last tenth of the text is held out")
    if deal.duplicates:
        notes.append(f"{deal.duplicates} pieces that stood there before were left out")
    sides = {
        "train": [index for index, held_out in enumerate(deal.held_out) if not held_out],
        "held_out": sorted(
            (index for index, held_out in enumerate(deal.held_out) if held_out), key=lambda i: deal.digests[i]
        ),
    }
    for name, indices in sides.items():
        write_store(folder, name, pieces.tokenized(indices, tokenizer), tokenizer.bos_id, tokenizer.vocab_size)
    bigram = ByteBigram()
    bigram.fit(pieces[index] for index in sides["train"])
    evaluated = read_store(folder, "held_out").pieces_within(config.evaluation_tokens)
    bits = bigram.bits_per_byte(pieces[index] for index in sides["held_out"][:evaluated])
    return {"notes": notes, "bigram_bits_per_byte": bits}


def _cut_in_two(pieces: PieceFile, deal: Deal) -> Deal:
    """Replaces a single piece by its halves where it has two; returns the deal that holds the second one out."""
    text = pieces[0].decode("utf-8")
    middle = len(text) // 2
    border = max(text.rfind(mark, middle // 2, middle + middle // 2) for mark in "\n ")
    if border <= 0:
        border = middle
    halves = [text[:border].rstrip(), text[border:].lstrip()]
    if not all(halves):
        return deal
    pieces.clear()
    for half in halves:
        pieces.append(half)
    return Deal(deal.fraction, held_out=[False, True], digests=[digest(half) for half in halves])


def _read_meta(folder: Path) -> dict[str, Any] | None:
    """Returns what `_build` noted, or None when the corpus is not there or not whole."""
    try:
        meta = json.loads((folder / _META).read_text(encoding="utf-8"))
        for name in ("train", "held_out"):
            read_store(folder, name)
    except (OSError, ValueError, DataError):
        return None
    return meta if isinstance(meta, dict) and {"notes", "bigram_bits_per_byte", "files"} <= meta.keys() else None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on `path`; it ends with the process, however that ends."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
