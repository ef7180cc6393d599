"""Trains the cells of a study, several at a time, and keeps their results.

A study of your own is one file with a subclass of `Study`: it lists cells, says what each is compared with, trains one,
and judges what was promised.
"""

import logging
import os
import platform
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict
from multiprocessing import get_context
from statistics import fmean
from typing import Any

import numpy as np
import torch

from scripts.experiments.cell import Cell, Result
from scripts.experiments.rows import Promise, Row
from scripts.experiments.store import Store
from scripts.terminal.output import Output
from trfmoe_core.counts import counted
from trfmoe_core.errors import ConfigError
from trfmoe_core.fingerprint import code_fingerprint


class Experiment(ABC):
    """Cells to train. It travels to worker processes, so everything in it can be pickled."""

    @abstractmethod
    def cells(self) -> list[Cell]:
        """Returns the cells to train, those that others are compared with first."""

    @abstractmethod
    def train(self, cell: Cell) -> Result:
        """Trains one cell."""

    def further_cells(self, results: Mapping[Cell, Result]) -> list[Cell]:
        """Returns the cells that the results so far call for; those among them that are trained are left alone."""
        return []

    def shares_with(self, cell: Cell) -> Hashable:
        """Returns a key: cells of one key are trained one after the other in one process and may share work."""
        return cell


class Study(Experiment):
    """An experiment whose cells are each compared with another one."""

    @abstractmethod
    def reference(self, cell: Cell) -> Cell:
        """Returns the cell that a cell is compared with; for one that others are compared with, the cell itself."""

    @abstractmethod
    def promises(self, rows: Sequence[Row]) -> list[Promise]:
        """Judges what is promised."""


def train_cells(study: Experiment, cells: Sequence[Cell], jobs: int) -> Iterator[Result]:
    """Yields the results of cells as they come.

    Args:
        study: Trains them.
        cells: In order.
        jobs: Processes at most, with one thread each; 1: this process.
    """
    groups: dict[Hashable, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(study.shares_with(cell), []).append(cell)
    jobs = min(jobs, os.cpu_count() or 1, len(groups))
    if jobs <= 1:
        with _quiet():
            for cell in (cell for group in groups.values() for cell in group):
                yield study.train(cell)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        waiting = [pool.submit(_train_group, study, group) for group in groups.values()]
        try:
            for done in as_completed(waiting):
                yield from done.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def conduct(study: Experiment, store: Store, jobs: int, output: Output) -> dict[Cell, Result]:
    """Returns the results of all cells of a study; those that are new are trained and kept.

    Args:
        study: Lists the cells and trains them.
        store: Has the results of earlier calls.
        jobs: Processes at most, with one thread each.
        output: Gets one line a cell.
    """
    wanted, results = list[Cell](), dict[Cell, Result]()
    more = study.cells()
    while more:
        wanted += more
        known = store.load(more)
        results |= known
        output.line(
            f"{counted(len(more), 'cell')}, {len(known)} of them trained before with this code; {jobs} at a time"
        )
        for result in train_cells(study, [cell for cell in more if cell not in known], jobs):
            results[result.cell] = result
            store.save(result)
            loss = fmean(result.losses.values()) if result.losses else float("nan")
            end = "" if result.ended else f", did not end: {result.reason}"
            output.line(f"[{len(results)}/{len(wanted)}] {result.cell}: loss {loss:.4f}, {result.seconds:.1f} s{end}")
        more = [cell for cell in study.further_cells(results) if cell not in results]
    return results


def environment() -> dict[str, Any]:
    """Returns what results may depend on besides the recipe."""
    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "threads": 1,
        "code": code_fingerprint()[:12],
    }


def payload(study: Study, rows: Sequence[Row], results: dict[Cell, Result]) -> dict[str, Any]:
    """Returns what programs read of a study: promises, rows, seeds and environment."""
    return {
        "ended": all(result.ended for result in results.values()),
        "promises": [asdict(promise) for promise in study.promises(rows)],
        "rows": [{**asdict(row), "ratio": row.ratio} for row in rows],
        "seeds": sorted({cell.seed for cell in results}),
        "environment": environment(),
        "cpu_seconds": sum(result.seconds for result in results.values()),
    }


def parse_names(text: str) -> list[str]:
    """Returns the names of a list with commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def parse_node_counts(text: str) -> list[int]:
    """Returns the numbers of nodes of `--nodes`, the smallest first.

    Raises:
        ConfigError: One of them is no number from 3 to 99.
    """
    names = parse_names(text)
    if not names or not all(name.isdigit() and 3 <= int(name) <= 99 for name in names):
        raise ConfigError(f"--nodes {text}: give numbers from 3 to 99, such as 3,7,9")
    return sorted({int(name) for name in names})


def _train_group(study: Experiment, cells: Sequence[Cell]) -> list[Result]:
    with _quiet():
        return [study.train(cell) for cell in cells]


@contextmanager
def _quiet() -> Iterator[None]:
    """Trains on one thread, and keeps the log of faults that are played on purpose to itself."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        torch.set_num_threads(threads)
