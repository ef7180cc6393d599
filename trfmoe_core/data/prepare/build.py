"""Writes a corpus: documents to shards, shards to stores, and a report for every file."""

import contextlib
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from trfmoe_core.atomic import new_folder, write_text
from trfmoe_core.config.data import DataConfig
from trfmoe_core.data.documents.reports import FileReport
from trfmoe_core.data.formats.reading import Reading
from trfmoe_core.data.prepare.merge import first_piece, halves, merge
from trfmoe_core.data.prepare.shards import Documents, Encoder, Shard, ShardWriter, batches
from trfmoe_core.data.sources import Source
from trfmoe_core.data.tokenizers import Tokenizer
from trfmoe_core.errors import DataError

META = "corpus.json"
LEFT_OUT = ("changed", "unreadable")
_LISTED_FILES = 40
_FORGOTTEN_S = 7 * 24 * 3600

Progress = Callable[[str, int, int], None]
"""Told (what, done, total) while something long goes on."""


def describe_files(files: Sequence[FileReport]) -> str:
    """Returns a count of the statuses and one line a file, those with a problem first, the longest lists cut off."""
    counts = Counter(report.status for report in files)
    ordered = sorted(files, key=lambda report: report.status == "ok")
    lines = [f"  {report.path}: {report.status}{': ' * bool(report.detail)}{report.detail}" for report in ordered]
    left = len(lines) - _LISTED_FILES
    more = [f"  and {left} more"] if left > 0 else []
    total = ", ".join(f"{number} {status}" for status, number in sorted(counts.items()))
    return "\n".join([f"{len(files)} files: {total or 'none'}", *lines[:_LISTED_FILES], *more])


def without(source: Source, changing: dict[Path, FileReport]) -> Source:
    """Returns the source without the files in `changing`, which carry their report instead."""
    units = [unit for unit in source.units if unit.file.path not in changing]
    files = [replace(file, report=changing.get(file.path, file.report)) for file in source.files]
    return replace(source, files=files, units=units)


def build(
    folder: Path,
    sources: Sequence[Source],
    config: DataConfig,
    tokenizer: Tokenizer,
    progress: Progress,
    *,
    lenient: bool = False,
) -> dict[Path, FileReport]:
    """Writes the corpus; it is there whole or not at all. Returns the files that changed meanwhile.

    If `lenient`, those that changed or vanished before they were opened are left out of it. Otherwise, and where one
    changed while its text was taken, nothing is written.

    Raises:
        DataError: no text to train on and to hold out, or a process died.
    """
    shards_folder = folder.with_name(f"{folder.name}.shards")
    _forget_old_shards(folder.parent)
    shards_folder.mkdir(exist_ok=True)
    files = [file for source in sources for file in source.files]
    processes = config.processes or len(os.sched_getaffinity(0))
    with ShardWriter(shards_folder, Encoder(tokenizer, config.piece_bytes), processes) as writer:
        shards, reports = _read_all(sources, writer, progress)
        writer.finish()
        # A list, not a mapping: two sources may lead to the same file.
        read = [(file.path, report) for file, report in zip(files, reports, strict=True) if file.report is None]
        changed = {path: report for path, report in read if report.status in LEFT_OUT}
        read = [(path, report) for path, report in read if path not in changed]
        if changed and (not lenient or any(report.characters for report in changed.values())):
            return changed
        with new_folder(folder) as temporary:
            meta = _merge(temporary, shards, config, tokenizer, writer)
            if meta is None:
                shutil.rmtree(shards_folder, ignore_errors=True)
                raise DataError(
                    f"no text to train on and to hold out in {'; '.join(source.name for source in sources)}; give PDF, "
                    f"parquet, JSONL or text files with more text; {describe_files(reports)}"
                )
            write_text(temporary / META, json.dumps({**meta, "files": [asdict(report) for _, report in read]}))
    shutil.rmtree(shards_folder, ignore_errors=True)
    return changed


def _forget_old_shards(home: Path) -> None:
    """Removes the shards of preparations that were killed long ago and never started again."""
    for folder in home.glob("*.shards"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - folder.stat().st_mtime > _FORGOTTEN_S:
                shutil.rmtree(folder, ignore_errors=True)


def _read_all(
    sources: Sequence[Source], writer: ShardWriter, progress: Progress
) -> tuple[list[list[Shard]], list[FileReport]]:
    """Returns every source's shards, and a report for every file of all sources."""
    total = sum(len(source.units) for source in sources)
    done, characters = 0, 0
    shards: list[list[Shard]] = []
    reports: list[FileReport] = []
    for source in sources:
        told: list[FileReport] = []
        shards.append([])
        for batch in batches(_documents(source, told)):
            shards[-1].append(writer.write(batch))
            characters += batch.size
            progress(f"{characters / 1e6:,.0f} MB to tokens", done + len(told), total)
        done += len(told)
        reports += source.reports(told)
    return shards, reports


def _documents(source: Source, told: list[FileReport]) -> Iterator[tuple[str, int, str]]:
    """Yields (text, unit, place), and appends to `told` what became of each unit.

    Units that are left out are not counted: the corpus is the one of a folder without them.
    """
    number = 0
    for unit in source.units:
        reading = Reading(unit)
        for document in reading:
            yield document.text, number, document.place
        told.append(reading.report)
        number += reading.report.status not in LEFT_OUT


def _merge(
    folder: Path, shards: list[list[Shard]], config: DataConfig, tokenizer: Tokenizer, writer: ShardWriter
) -> dict[str, Any] | None:
    notes = []
    options = (tokenizer.vocab_size, config.held_out, config.deduplicate)
    merged = merge(folder, shards, *options)
    if merged is None:
        source, unit, text = first_piece(shards)
        parts = halves(text)
        if not all(parts):
            return None
        cut = Documents(parts, [unit, unit], ["first half", "second half"], len(text))
        shards = [[writer.write(cut)] if number == source else [] for number in range(len(shards))]
        writer.finish()
        merged = merge(folder, shards, *options)
        if merged is None:
            return None
        notes.append("a single piece of text: it was cut in two, and one half is held out")
    if merged.leaked:
        raise DataError(f"{merged.leaked} held-out pieces are in the training text; this must not happen: report it")
    if merged.mended:
        notes.append("one side of the split by hash was empty: the last tenth of the text is held out")
    if merged.duplicates:
        notes.append(f"{merged.duplicates} pieces that stood there before were left out")
    return {"notes": notes, "duplicates": merged.duplicates, "leaked": merged.leaked}
