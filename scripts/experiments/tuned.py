"""Studies in which every side gets the learning rate that is best for it, and sides are compared seed by seed."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

from scripts.experiments import small_model
from scripts.experiments.cell import Cell, Result
from scripts.experiments.rows import Promise
from scripts.experiments.runner import Experiment, environment
from scripts.experiments.sides import DealtText, Side, rate_of, train_side
from scripts.experiments.small_model import RECIPE

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
        steps: Of a run.
        seeds: Of every row at its best rate, at least.
    """

    RECIPE: ClassVar[Mapping[str, object]] = RECIPE
    STEPS: ClassVar[tuple[int, int]] = (small_model.STEPS, small_model.STEPS)
    """Of a run in the small and in the full form."""
    by_domain: ClassVar[bool] = False
    """Whether every given text is a domain with nodes of its own; else they are one text."""

    base: Mapping[str, object]
    text: DealtText
    answers: Path | None = None
    full: bool = False
    steps: int = small_model.STEPS
    seeds: int = 1

    @abstractmethod
    def tuned(self) -> list[Tuned]:
        """Returns all sides, those that take longest first."""

    @abstractmethod
    def goals(self, results: Results) -> list[Promise]:
        """Judges what the study is to show."""

    @abstractmethod
    def markdown(self, results: Results) -> list[str]:
        """Returns the tables and the goals."""

    def payload(self, results: Results) -> dict[str, Any]:
        """Returns the study for programs: every cell, the goals, the seeds and the environment."""
        return {
            "ended": all(result.ended for result in results.values()),
            "goals": [asdict(found) for found in self.goals(results)],
            "cells": [
                {**asdict(cell), "losses": result.losses, "cpu_seconds": result.seconds}
                for cell, result in results.items()
            ],
            "seeds": sorted({cell.seed for cell in results}),
            "texts": list(self.text.names),
            "environment": environment(),
        }

    def deal(self, texts: Mapping[str, Sequence[str]], sources: Sequence[str]) -> None:
        """Deals the text out to the nodes of all sides.

        Args:
            texts: Name -> pieces.
            sources: The files and folders that they were read from.
        """
        self.text.deal(texts, {entry.side.parts for entry in self.tuned()})

    def cells(self) -> list[Cell]:
        """Returns every side at every rate, with the first seed."""
        return [entry.side.cell(rate, 0) for entry in self.tuned() for rate in entry.rates]

    def further_cells(self, results: Results) -> list[Cell]:
        """Returns the other seeds of the best rates."""
        return [
            entry.side.cell(best_rate(entry.side, results), seed)
            for entry in self.tuned()
            for seed in range(1, max(self.seeds, entry.seeds))
        ]

    def seeds_of(self, full: int) -> range:
        """Returns the seeds of cells with faults; the full form has at least `full`."""
        return range(max(self.seeds, full if self.full else 1))

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
        return next(entry.side for entry in self.tuned() if (entry.side.name, entry.side.rule) == (name, cell.rule))


def best_rate(side: Side, results: Results) -> float:
    """Returns the learning rate of a side with the lowest loss at its first seed."""
    tried = {
        rate_of(cell): mean_loss(result) for cell, result in results.items() if cell.seed == 0 and is_of(cell, side)
    }
    return min(tried, key=tried.__getitem__)


def best_results(side: Side, results: Results) -> dict[int, Result]:
    """Returns the results of a side at its best rate, by seed."""
    rate = best_rate(side, results)
    return {cell.seed: result for cell, result in results.items() if is_of(cell, side) and rate_of(cell) == rate}


def best_losses(side: Side, results: Results) -> dict[int, float]:
    """Returns the losses of a side at its best rate, by seed."""
    return {seed: mean_loss(result) for seed, result in best_results(side, results).items()}


def ratios(side: Side, other: Side, results: Results) -> Ratio:
    """Returns the losses of a side over those of another with the same seeds, each at its best rate."""
    mine, theirs = best_losses(side, results), best_losses(other, results)
    return [mine[seed] / theirs[seed] for seed in sorted(mine.keys() & theirs.keys())]


def goal(text: str, limit: float, values: Sequence[float]) -> Promise:
    """Returns the goal that the mean of paired seeds is at most `limit`."""
    mean = fmean(values) if values else None
    return Promise(text=text, limit=limit, worst=mean, where=shown(values), kept=mean is not None and mean <= limit)


def goal_table(goals: Sequence[Promise]) -> list[str]:
    """Returns the goals as Markdown; a goal that is missed says by how much."""
    lines = ["| goal | at most | found | |", "|---|---|---|---|"]
    for found in goals:
        missed = "not measured" if found.worst is None else f"**missed by {found.worst - found.limit:.3f}**"
        lines.append(f"| {found.text} | {found.limit:g} | {found.where} | {'reached' if found.kept else missed} |")
    return lines


def loss_table(study: TunedStudy, results: Results, compared: Sequence[Side]) -> list[str]:
    """Returns the losses of all sides at their best rates, the losses at all rates, and ratios to some sides."""
    lines = [f"| | rate | nats | all rates | {' | '.join(f'over {side.name}' for side in compared)} |"]
    lines.append("|---" * (4 + len(compared)) + "|")
    for entry in study.tuned():
        side, rate = entry.side, best_rate(entry.side, results)
        tried = sorted((rate_of(c), mean_loss(r)) for c, r in results.items() if c.seed == 0 and is_of(c, side))
        parts = [side.name, f"{rate:g}", shown(list(best_losses(side, results).values()))]
        parts.append(", ".join(f"{tried_rate:g}: {loss:.3f}" for tried_rate, loss in tried))
        parts += [shown(ratios(side, other, results)) for other in compared]
        lines.append(f"| {' | '.join(parts)} |")
    return lines


def mean_loss(result: Result) -> float:
    """Returns the mean over the texts; infinite if no model came out."""
    return fmean(result.losses.values()) if result.losses else float("inf")


def shown(values: Sequence[float]) -> str:
    """Returns mean and range."""
    if not values:
        return ""
    spread = f" ({min(values):.3f}-{max(values):.3f})" if len(values) > 1 else ""
    return f"{fmean(values):.3f}{spread}"


def is_of(cell: Cell, side: Side) -> bool:
    """Returns whether a cell trains a side without faults."""
    return not cell.attackers and cell.setting.rpartition(" @ ")[0] == side.name and cell.rule == side.rule
