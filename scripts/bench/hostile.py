"""A hostile folder, read to the end: `python -m scripts.bench.hostile [--files 2000] [--json]`.

Makes the folder (`hostile_files.py`), prepares it as a node would, and counts what became of every file, the
seconds, and the most memory that this process and the largest of its children held. Then the same for a folder that is
changed all the while it is read, and for an empty one.
"""

import argparse
import os
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from scripts.bench.hostile_files import GIGABYTE, page, pdf
from scripts.output import Output
from trfmoe_core.config import DataConfig
from trfmoe_core.data.documents.reports import FileReport
from trfmoe_core.data.prepare.corpus_cache import prepare_corpus
from trfmoe_core.data.tokenizers import load_tokenizer
from trfmoe_core.errors import DataError

CHANGING_FILES, CHANGING_RUNS = 300, 3


def walk(folder: Path) -> int:
    """Returns how many things below a folder are no folders."""
    return sum(
        len(names) + sum(os.path.islink(Path(at, name)) for name in folders)  # noqa: PTH114
        for at, folders, names in os.walk(folder)
    )


def measure_folder(files: int, config: DataConfig, scratch: Path, bomb_bytes: int) -> dict[str, Any]:
    """Returns what became of a hostile folder."""
    making = [sys.executable, "-m", "scripts.bench.hostile_files", str(scratch / "in"), str(files), str(bomb_bytes)]
    traps = int(subprocess.run(making, check=True, capture_output=True, text=True).stdout)
    started = time.monotonic()
    reports = read(scratch / "in", scratch / "cache", config)
    first = time.monotonic() - started
    again = read(scratch / "in", scratch / "cache", config)
    return {
        "files": walk(scratch / "in"),
        "traps": traps,
        "accounted": len({report.path for report in reports}),
        "statuses": dict(Counter(report.status for report in reports).most_common()),
        "same_again": again == reports,
        "seconds": round(first, 1),
        "seconds_again": round(time.monotonic() - started - first, 1),
        "peak_memory_mb": peak_mb(resource.RUSAGE_SELF),
        "peak_memory_child_mb": peak_mb(resource.RUSAGE_CHILDREN),
    }


def measure_changing(config: DataConfig, scratch: Path) -> dict[str, Any]:
    """Returns what became of a folder whose files come, go, grow, shrink and change their kind while it is read."""
    folder = scratch / "changing"
    folder.mkdir()
    stop = threading.Event()
    chance = random.Random(0)

    def change() -> None:
        while not stop.is_set():
            path = folder / f"{chance.randrange(CHANGING_FILES)}.{chance.choice(['txt', 'pdf', 'jsonl', 'md'])}"
            deed = chance.randrange(5)
            try:
                if deed == 0:
                    path.unlink()
                elif deed == 1:
                    path.unlink(missing_ok=True)
                    os.mkfifo(path)
                elif deed == 2 and path.is_file():
                    os.truncate(path, path.stat().st_size // 2)
                elif not path.exists() or path.is_file():
                    text = f"File {path.stem} now says {chance.random()}. " * 20
                    path.write_bytes(pdf([page(text)]) if path.suffix == ".pdf" else text.encode())
            except OSError:
                continue
            finally:
                stop.wait(0.005)

    for number in range(0, CHANGING_FILES, 2):
        (folder / f"{number}.txt").write_text(f"File {number} before anything changed, {chance.random()}. " * 20)
    thread = threading.Thread(target=change, daemon=True)
    thread.start()
    started = time.monotonic()
    statuses: Counter[str] = Counter()
    runs = 0
    refused = ""
    try:
        while runs < CHANGING_RUNS:
            statuses.update(report.status for report in read(folder, scratch / "cache", config))
            runs += 1
    except DataError as error:
        refused = str(error)[:300]
    finally:
        stop.set()
        thread.join()
    return {
        "changing_runs": runs,
        "changing_refused": refused,
        "changing_seconds": round(time.monotonic() - started, 1),
        "changing_statuses": dict(statuses.most_common()),
    }


def read(folder: Path, cache: Path, config: DataConfig) -> list[FileReport]:
    """Returns the reports of a folder as a node gets them."""
    return prepare_corpus([str(folder)], config, load_tokenizer("byte"), cache).files


def peak_mb(who: int) -> int:
    """Returns the most memory that this process, or the largest of its children, ever held."""
    return resource.getrusage(who).ru_maxrss >> 10


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--timeout", type=float, default=10.0, help="data.file_timeout_s")
    parser.add_argument("--memory", type=int, default=1024, help="data.file_memory_mb")
    parser.add_argument("--bomb", type=int, default=2 * GIGABYTE, help="bytes that bombs inflate to")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = parser.parse_args()
    output = Output(options.json)
    config = DataConfig(file_timeout_s=options.timeout, file_memory_mb=options.memory)
    with tempfile.TemporaryDirectory(prefix="trfmoe-hostile-") as scratch:
        result = measure_folder(options.files, config, Path(scratch), options.bomb)
        result |= measure_changing(config, Path(scratch))
        (Path(scratch) / "empty").mkdir()
        try:
            read(Path(scratch) / "empty", Path(scratch) / "cache", config)
        except DataError as error:
            result["empty_folder"] = str(error).splitlines()[0]
    for name, value in result.items():
        output.line(f"{name:34}{value}")
    whole = result["accounted"] == result["files"] and result["same_again"] and "empty_folder" in result
    whole = whole and result["changing_runs"] == CHANGING_RUNS
    output.result({"outcome": "completed" if whole else "failed", **result, "exit_code": 0 if whole else 1})
    raise SystemExit(0 if whole else 1)


if __name__ == "__main__":
    main()
