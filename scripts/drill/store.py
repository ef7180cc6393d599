"""Where a drill keeps the cells that have ended, so that one that was stopped goes on where it was."""

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from scripts.drill.cell import Cell, CellResult, deal_text
from trfmoe_core.atomic import write_text
from trfmoe_core.config import Recipe
from trfmoe_core.fingerprint import code_fingerprint


class Store:
    """A drill's own folder: the nodes' texts, the cells that have ended, and what nodes answered in them.

    Everything in it is of one recipe, one text and one version of the code: others have folders of their own.

    Args:
        root: Folders of drills are made below it.
        recipe: What the cells have in common.
        pieces: The text of all nodes.
        counts: Numbers of nodes to deal it out among.
    """

    def __init__(self, root: Path, recipe: Recipe, pieces: Sequence[str], counts: Sequence[int]) -> None:
        self.folder = root / _key(recipe, pieces)
        self.texts, self.memory = self.folder / "texts", self.folder / "memory"
        deal_text(pieces, counts, self.texts)

    def load(self, cells: Iterable[Cell]) -> dict[Cell, CellResult]:
        """Returns those of the cells that have ended before."""
        found = {}
        for cell in cells:
            path = self._path(cell)
            if path.exists():
                told: dict[str, Any] = json.loads(path.read_text())
                found[cell] = CellResult(**{**told, "cell": cell})
        return found

    def save(self, result: CellResult) -> None:
        """Keeps a cell, unless its run did not end: that may be the machine's fault."""
        if not result.ended:
            return
        write_text(self._path(result.cell), json.dumps(asdict(result)))

    def forget_answers(self) -> None:
        """Deletes what nodes answered: large, and of use only while cells are run."""
        shutil.rmtree(self.memory, ignore_errors=True)

    def _path(self, cell: Cell) -> Path:
        name = f"{cell.nodes}-{cell.fault}-{cell.rule}-{cell.seed}".replace(" ", "_")
        return self.folder / "cells" / f"{name}.json"


def _key(recipe: Recipe, pieces: Sequence[str]) -> str:
    found = sha256(code_fingerprint().encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        found.update(path.read_bytes())
    # The cells have nodes and folders of their own.
    found.update(recipe.model_copy(update={"nodes": [], "run_root": ""}).model_dump_json().encode())
    for piece in pieces:
        found.update(piece.encode())
    return found.hexdigest()[:16]
