"""Writes a corpus: documents become shards, shards become token stores, and every file gets a report."""

import contextlib
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from trfmoe_core.atomic import new_folder, write_text
from trfmoe_core.config.data import DataConfig
from trfmoe_core.counts import counted
from trfmoe_core.data.documents.clean import Normalization
from trfmoe_core.data.documents.reports import FileReport, shortened
from trfmoe_core.data.formats.base import known_suffixes
from trfmoe_core.data.formats.reading import Reading
from trfmoe_core.data.prepare.held_out_record import HeldOutRecord, as_hex
from trfmoe_core.data.prepare.merge import first_piece, halves, merge
from trfmoe_core.data.prepare.shards import Documents, Encoder, Shard, ShardWriter, grouped
from trfmoe_core.data.prepare.split import as_numbers, digest
from trfmoe_core.data.sources import OpenedSource
from trfmoe_core.data.tokenizers import Tokenizer
from trfmoe_core.errors import DataError

META = "corpus.json"
LEFT_OUT = ("changed", "unreadable")
_LISTED_FILES = 40
_LONGEST_PATH = 240
_ABANDONED_S = 7 * 24 * 3600

Progress = Callable[[str, int, int], None]
"""Called with (what, done, total) during long work."""


def describe_files(files: Sequence[FileReport]) -> str:
    """Returns a count of the statuses and one line per file, problems first, with at most 40 files."""
    counts = Counter(report.status for report in files)
    ordered = sorted(files, key=lambda report: report.status == "ok")
    lines = [
        f"  {shortened(report.path, _LONGEST_PATH)}: {report.status}{': ' * bool(report.detail)}{report.detail}"
        for report in ordered
    ]
    left = len(lines) - _LISTED_FILES
    more = [f"  and {left} more"] if left > 0 else []
    total = ", ".join(f"{number} {status}" for status, number in sorted(counts.items()))
    return "\n".join([f"{counted(len(files), 'file')}: {total or 'none'}", *lines[:_LISTED_FILES], *more])


def without(source: OpenedSource, changing: dict[Path, FileReport]) -> OpenedSource:
    """Returns the source with the files of `changing` not read; they carry the reports given there."""
    units = [unit for unit in source.units if unit.file.path not in changing]
    files = [replace(file, report=changing.get(file.path, file.report)) for file in source.files]
    return replace(source, files=files, units=units)


def build(
    folder: Path,
    sources: Sequence[OpenedSource],
    config: DataConfig,
    tokenizer: Tokenizer,
    progress: Progress,
    record: HeldOutRecord,
    *,
    lenient: bool = False,
) -> dict[Path, FileReport]:
    """Writes the corpus. The folder appears at once, when it is complete. Returns the files that changed meanwhile.

    Args:
        folder: where the corpus is written.
        sources: where its documents come from.
        config: how documents become tokens.
        tokenizer: the tokenizer.
        progress: called during the work.
        record: what was held out before.
        lenient: True: files that changed or vanished before they were opened are left out. False, or if a file
            changed while its text was read: nothing is written.

    Raises:
        DataError: there is too little text to train on some and hold out some, or a process died.
    """
    shards_folder = folder.with_name(f"{folder.name}.shards")
    _remove_abandoned_shards(folder.parent)
    shards_folder.mkdir(exist_ok=True)
    files = [file for source in sources for file in source.files]
    processes = config.processes or len(os.sched_getaffinity(0))
    with ShardWriter(shards_folder, Encoder(tokenizer, config.piece_bytes), processes) as writer:
        shards, reports = _read_all(sources, writer, config, progress)
        writer.finish()
        # A list and no mapping: two sources may lead to the same file.
        read = [(file.path, report) for file, report in zip(files, reports, strict=True) if file.report is None]
        changed = {path: report for path, report in read if report.status in LEFT_OUT}
        read = [(path, report) for path, report in read if path not in changed]
        if changed and (not lenient or any(report.characters for report in changed.values())):
            return changed
        with new_folder(folder) as temporary:
            paths = {str(unit.file.path) for source in sources for unit in source.units}
            meta = _merge(temporary, shards, config, writer, record, paths)
            if meta is None:
                shutil.rmtree(shards_folder, ignore_errors=True)
                raise DataError(
                    f"no text to train on and to hold out in {'; '.join(source.name for source in sources)}; give "
                    f"files with more text, ending in {known_suffixes()}; {describe_files(reports)}"
                )
            write_text(temporary / META, json.dumps({**meta, "files": [asdict(report) for _, report in read]}))
    shutil.rmtree(shards_folder, ignore_errors=True)
    return changed


def _remove_abandoned_shards(home: Path) -> None:
    """Removes the shards of preparations that were killed a week ago or earlier and never started again."""
    for folder in home.glob("*.shards"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - folder.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(folder, ignore_errors=True)


def _read_all(
    sources: Sequence[OpenedSource], writer: ShardWriter, config: DataConfig, progress: Progress
) -> tuple[list[list[Shard]], list[FileReport]]:
    """Returns every source's shards, and a report for every file of all sources."""
    total = sum(len(source.units) for source in sources)
    done, characters = 0, 0
    shards: list[list[Shard]] = []
    reports: list[FileReport] = []
    for source in sources:
        unit_reports: list[FileReport] = []
        shards.append([])
        for batch in grouped(_documents(source, config.normalization, unit_reports)):
            shards[-1].append(writer.write(batch))
            characters += batch.size
            progress(f"{characters / 1e6:,.0f} MB to tokens", done + len(unit_reports), total)
        done += len(unit_reports)
        reports += source.reports(unit_reports)
    return shards, reports


def _documents(
    source: OpenedSource, normalization: Normalization, reports: list[FileReport]
) -> Iterator[tuple[str, int, str]]:
    """Yields (text, unit, place) and appends the report of every unit to `reports`.

    Units that are left out get no number, so that the corpus equals that of a folder without them.
    """
    number = 0
    for unit in source.units:
        reading = Reading(unit, normalization)
        for document in reading:
            yield document.text, number, document.place
        reports.append(reading.report)
        number += reading.report.status not in LEFT_OUT


def _merge(
    folder: Path,
    shards: list[list[Shard]],
    config: DataConfig,
    writer: ShardWriter,
    record: HeldOutRecord,
    paths: Set[str],
) -> dict[str, Any] | None:
    notes = []
    earlier = record.digests(paths)
    options = (writer.vocab_size, config, earlier)
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
        # When there is more text, the whole piece is held out: it holds this half.
        record.add(paths, np.concatenate([merged.held_out, as_numbers(digest(text))]))
    if merged.leaked:
        raise DataError(f"{merged.leaked} held-out pieces are in the training text; this must not happen: report it")
    if merged.besides.size:
        record.add(paths, merged.besides)
        notes.append(
            f"{counted(len(merged.besides), 'piece is', 'pieces are')} held out besides those below the "
            f"threshold {config.held_out:g} of the "
            "split by hash, because there is or was little text; they stay held out"
        )
    if merged.duplicates:
        notes.append(f"{merged.duplicates} pieces that stood there before were left out")
    if merged.near_duplicates:
        notes.append(f"left out: {counted(merged.near_duplicates, 'piece')} nearly the same as one on the other side")
    if merged.overlapping:
        notes.append(
            f"{merged.overlapping} held-out pieces are nearly the same as training text: the text repeats itself, "
            "and leaving them out would leave nothing"
        )
    return {
        "notes": notes,
        "duplicates": merged.duplicates,
        "near_duplicates": merged.near_duplicates,
        "overlapping": merged.overlapping,
        "leaked": merged.leaked,
        "besides": as_hex(merged.besides),
        "earlier": as_hex(earlier),
    }
