"""The study of what fewer bytes cost: the held-out loss of whole runs under each transport setting.

Three nodes with the real coordinator, clients and wire. Every way gets the same seeds, so that data, initial weights
and order are equal. Losses are the median over the nodes, of the last model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from scripts.experiments.cell import Cell, Result
from scripts.experiments.cell_training import train_cell
from scripts.experiments.rows import Promise, Results, Row, at_most, make_rows
from scripts.experiments.runner import Study, environment
from scripts.experiments.transports import TRANSPORTS, WAYS
from trfmoe_core.config import Recipe, TransportConfig

NODES = 3
BASELINE = "train float32"
COMPARED = (
    "train bfloat16 down, int8 up",
    "train int8 differences, int8 up",
    "train int8 differences, int4 up",
)
LIMIT = 1.01
"""Loss relative to float32 that is still as good."""

RECIPE: dict[str, Any] = {
    "num_nodes": NODES,
    "model": {"layers": 3, "width": 64, "heads": 4, "experts": 8, "top_k": 2, "expert_width": 64, "context": 64},
    "data": {"evaluation_tokens": 16384},
    "training": {"batch_size": 12, "device": "cpu", "precision": "float32"},
}


@dataclass(frozen=True, kw_only=True)
class WireLossStudy(Study):
    """Ways to travel times seeds.

    Attributes:
        recipe: What the cells have in common.
        folder: Holds the nodes' texts and their answers.
        seeds: Number of paired seeds.
    """

    recipe: Recipe
    folder: Path
    seeds: int

    def cells(self) -> list[Cell]:
        """Returns every way for every seed, float32 first."""
        ways = (BASELINE, *COMPARED)
        return [
            Cell(nodes=NODES, rule=self.recipe.vote, seed=seed, setting=way)
            for seed in range(self.seeds)
            for way in ways
        ]

    def reference(self, cell: Cell) -> Cell:
        """Returns float32 with the same seed."""
        return Cell(nodes=cell.nodes, rule=cell.rule, seed=cell.seed, setting=BASELINE)

    def train(self, cell: Cell) -> Result:
        """Trains a federation with the real coordinator and clients."""
        transport = TransportConfig.model_validate(TRANSPORTS[WAYS[cell.setting].transport])
        recipe = self.recipe.model_copy(update={"transport": transport})
        return train_cell(recipe, cell, self.folder / "texts", self.folder / "answers")

    def promises(self, rows: Sequence[Row]) -> list[Promise]:
        """Judges the worst seed of every way."""
        return [
            promise
            for row in rows
            if row.setting != BASELINE
            for promise in at_most(f"{row.setting}: loss over float32's", LIMIT, [row], lambda row: row.highest)
        ]

    def payload(self, results: Results) -> dict[str, Any]:
        """Returns the study for programs."""
        rows = {row.setting: row for row in self._rows(results)}
        ratios = {way: [ratio or float("nan") for ratio in rows[way].ratios] for way in COMPARED}
        return {
            "rounds": self.recipe.rounds.num_rounds,
            "local_steps": self.recipe.rounds.local_steps,
            "losses": {way: self._losses(results, way) for way in (BASELINE, *COMPARED)},
            "loss_ratios": ratios,
            "loss_ratio_mean": {way: fmean(values) for way, values in ratios.items()},
            "loss_ratio_worst": max(max(values) for values in ratios.values()),
            "reached": all(promise.kept for promise in self.promises(list(rows.values()))),
            "seeds": list(range(self.seeds)),
            "environment": environment(),
        }

    def _rows(self, results: Results) -> list[Row]:
        return make_rows(results, self.reference, [BASELINE, *COMPARED], median)

    def _losses(self, results: Results, way: str) -> list[float]:
        found = sorted((cell for cell in results if cell.setting == way), key=lambda cell: cell.seed)
        return [median(results[cell].losses.values()) for cell in found]
