"""Studies in which every side gets the learning rate that is best for it, and sides are compared seed by seed."""

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from scripts.experiments.cell import Cell, Result
from scripts.experiments.runner import Experiment
from scripts.experiments.sides import DealtText, Side, rate_of, train_side

Results = Mapping[Cell, Result]
Ratio = list[float]
"""Of two sides, one entry a paired seed."""


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """A side with the learning rates to try and the seeds of the best one.

    Attributes:
        side: The side.
        rates: The first seed tries them all.
        seeds: So many seeds train with the best rate.
    """

    side: Side
    rates: Sequence[float]
    seeds: int = 1


@dataclass(frozen=True, kw_only=True)
class TunedStudy(Experiment):
    """Sides, each with the rate that is best for it.

    Attributes:
        base: What the recipes of all sides have in common.
        text: Dealt out for every number of parts that a side has.
        answers: Folder that keeps honest answers, for studies with faults.
        full: Whether this is the form whose tables are in docs/results.
    """

    base: Mapping[str, object]
    text: DealtText
    answers: Path | None = None
    full: bool = False
    _best: dict[str, float] = field(default_factory=dict, repr=False, compare=False)

    @abstractmethod
    def tuned(self) -> list[Tuned]:
        """Returns all sides, those that take longest first."""

    @abstractmethod
    def payload(self, results: Results) -> dict[str, Any]:
        """Returns the study for programs."""

    @abstractmethod
    def markdown(self, results: Results) -> list[str]:
        """Returns the tables and the goals."""

    def cells(self) -> list[Cell]:
        """Returns every side at every rate, with the first seed."""
        return [entry.side.cell(rate, 0) for entry in self.tuned() for rate in entry.rates]

    def further_cells(self, results: Results) -> list[Cell]:
        """Returns the other seeds of the best rates."""
        return [
            entry.side.cell(best_rate(entry.side, results), seed)
            for entry in self.tuned()
            for seed in range(1, entry.seeds)
        ]

    def train(self, cell: Cell) -> Result:
        """Trains one side at one rate."""
        side = self.side_of(cell)
        recipe = side.recipe(self.base, rate_of(cell))
        return train_side(recipe, side, cell, self.text, self.answers if self.keeps_answers(cell) else None)

    def keeps_answers(self, cell: Cell) -> bool:
        """Returns whether other cells may share the honest training of this one."""
        return False

    def side_of(self, cell: Cell) -> Side:
        """Returns the side that a cell trains."""
        name = cell.setting.rpartition(" @ ")[0]
        return next(
            entry.side for entry in self.tuned() if (entry.side.name, entry.side.rule) == (name, cell.rule)
        )


def best_rate(side: Side, results: Results) -> float:
    """Returns the learning rate of a side with the lowest loss at its first seed."""
    tried = {
        rate_of(cell): mean_loss(result)
        for cell, result in results.items()
        if cell.seed == 0 and not cell.attackers and _is_of(cell, side)
    }
    return min(tried, key=tried.__getitem__)


def best_losses(side: Side, results: Results) -> dict[int, float]:
    """Returns the losses of a side at its best rate, by seed."""
    rate = best_rate(side, results)
    return {
        cell.seed: mean_loss(result)
        for cell, result in results.items()
        if not cell.attackers and _is_of(cell, side) and rate_of(cell) == rate
    }


def ratios(side: Side, other: Side, results: Results) -> Ratio:
    """Returns the losses of a side over those of another with the same seeds, each at its best rate."""
    mine, theirs = best_losses(side, results), best_losses(other, results)
    return [mine[seed] / theirs[seed] for seed in sorted(mine.keys() & theirs.keys())]


def mean_loss(result: Result) -> float:
    """Returns the mean over the texts; infinite if no model came out."""
    return fmean(result.losses.values()) if result.losses else float("inf")


def shown(values: Sequence[float]) -> str:
    """Returns mean and range."""
    if not values:
        return ""
    spread = f" ({min(values):.3f}-{max(values):.3f})" if len(values) > 1 else ""
    return f"{fmean(values):.3f}{spread}"


def _is_of(cell: Cell, side: Side) -> bool:
    return cell.setting.rpartition(" @ ")[0] == side.name and cell.rule == side.rule
