"""Keeps the results of cells on disk, so that an experiment that was stopped goes on where it was."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scripts.experiments.cell import Cell, Result, Round
from trfmoe_core.atomic import write_text
from trfmoe_core.fingerprint import code_fingerprint


class Store:
    """Results of one version of the code and of one set of inputs, one JSON file a cell.

    Args:
        root: Folder of all experiments; each set of inputs has one of its own in it.
        inputs: All that the results depend on besides the code, as JSON: recipes, texts or their digests.
    """

    def __init__(self, root: Path, inputs: object) -> None:
        self.folder = root / _digest(inputs)

    def load(self, cells: Iterable[Cell]) -> dict[Cell, Result]:
        """Returns the results of those cells that have been trained."""
        found = {}
        for cell in cells:
            path = self._path(cell)
            if path.exists():
                kept: dict[str, Any] = json.loads(path.read_text())
                rounds = [Round(**entry) for entry in kept["rounds"]]
                found[cell] = Result(**{**kept, "cell": cell, "rounds": rounds})
        return found

    def save(self, result: Result) -> None:
        """Keeps a result, unless the run did not end: that may be the machine's fault."""
        if result.ended:
            write_text(self._path(result.cell), json.dumps(asdict(result)))

    def _path(self, cell: Cell) -> Path:
        name = hashlib.sha256(json.dumps(asdict(cell), sort_keys=True).encode()).hexdigest()[:16]
        return self.folder / "cells" / f"{cell.nodes}-{cell.fault}-{cell.rule}-{cell.seed}-{name}.json"


def _digest(inputs: object) -> str:
    found = hashlib.sha256(code_fingerprint().encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        found.update(path.read_bytes())
    found.update(json.dumps(inputs, sort_keys=True).encode())
    return found.hexdigest()[:16]
