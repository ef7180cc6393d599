"""The study `shakespeare`: nanoGPT's CPU budget, 2,000 steps of 12 x 64 characters of tiny-shakespeare.

On one machine, and on three nodes with and without a liar, where each node has nanoGPT's batch. nanoGPT reports 1.88
nats for its own split, the last tenth of the text; ours holds out pieces by their hash, from all over the text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

import numpy as np

from scripts.experiments.cell import Cell, Result
from scripts.experiments.cell_training import last_nodes
from scripts.experiments.rows import Promise
from scripts.experiments.sides import TOKENIZER, DealtText, Side, rate_of, train_side
from scripts.experiments.small_model import BATCH, BEST, RATES, federation, one_machine, optimizer_of
from scripts.experiments.tuned import (
    Results,
    Tuned,
    TunedStudy,
    best_losses,
    best_rate,
    goal,
    goal_table,
    loss_table,
    mean_loss,
)
from trfmoe_core.atomic import write_text
from trfmoe_core.config import Recipe
from trfmoe_core.data.batches.held_out import EvaluationSet

ATTACK = "sign_flip"
ALONE, WITH_LIAR = 1.45, 1.48
LAST_TENTH = "last tenth"


class ShakespeareStudy(TunedStudy):
    """One machine, three nodes, and three nodes with a liar."""

    STEPS: ClassVar[tuple[int, int]] = (2000, 2000)

    @property
    def federation(self) -> Side:
        """Three nodes."""
        return federation("muon", 25, steps=self.steps)

    def alone(self, optimizer: str) -> Side:
        """Returns one machine with a single node's batch."""
        side = one_machine(optimizer, steps=self.steps)
        settings = {**side.settings, "training.batch_size": BATCH}
        return replace(side, name=f"{side.name}, batch {BATCH}", settings=settings)

    @property
    def last_tenth(self) -> Side:
        """One machine that trains on the first nine tenths and is measured on the last, as nanoGPT's model is."""
        side = self.alone("muon")
        # Nearly everything is trained on: what is measured has been cut off before.
        return replace(
            side, name=f"{side.name}, {LAST_TENTH}", parts=1, settings={**side.settings, "data.held_out": 0.01}
        )

    def deal(self, texts: Mapping[str, Sequence[str]], sources: Sequence[str]) -> None:
        """Deals the text out, and cuts off its last tenth too if it is one text file."""
        super().deal(texts, sources)
        if len(sources) == 1 and Path(sources[0]).is_file():
            LastTenth(self.text.folder / LAST_TENTH, self.text.names).cut(Path(sources[0]))

    def tuned(self) -> list[Tuned]:
        """Returns three nodes and one machine; in the full form with AdamW too."""
        if not self.full:
            return [Tuned(side=self.alone("muon"), rates=[BEST["muon"]])]
        sides = [self.federation, self.alone("muon"), self.alone("adamw")]
        return [Tuned(side=side, rates=RATES[optimizer_of(side)]) for side in sides]

    def further_cells(self, results: Results) -> list[Cell]:
        """Returns the other seeds, and the federation with a liar."""
        rate = best_rate(self.federation, results) if self.full else BEST["muon"]
        liar = self.federation.cell(rate, 0, ATTACK, last_nodes(self.federation.nodes, 1))
        own_split = self.last_tenth.cell(best_rate(self.alone("muon"), results), 0)
        return [*super().further_cells(results), liar, *([own_split] if self._has_own_split else [])]

    @property
    def _has_own_split(self) -> bool:
        return (self.text.folder / LAST_TENTH).exists()

    def side_of(self, cell: Cell) -> Side:
        """Returns the side of a cell; the small form has the federation with a liar only."""
        if cell.attackers:
            return self.federation
        return self.last_tenth if LAST_TENTH in cell.setting else super().side_of(cell)

    def train(self, cell: Cell) -> Result:
        """Trains a cell; one of them is measured on the last tenth of the text."""
        if LAST_TENTH not in cell.setting:
            return super().train(cell)
        recipe = self.last_tenth.recipe(self.base, rate_of(cell))
        return train_side(recipe, self.last_tenth, cell, LastTenth(self.text.folder / LAST_TENTH, self.text.names))

    def with_liar(self, results: Results) -> list[float]:
        """Returns the losses of three nodes one of which lies."""
        return [mean_loss(result) for cell, result in results.items() if cell.attackers]

    def goals(self, results: Results) -> list[Promise]:
        """Returns the goals, in nats."""
        return [
            goal("one machine, muon", ALONE, list(best_losses(self.alone("muon"), results).values())),
            goal(f"three nodes, one of which plays {ATTACK}", WITH_LIAR, self.with_liar(results)),
        ]

    def payload(self, results: Results) -> dict[str, Any]:
        """Returns the losses, and all cells."""
        return {
            "alone": fmean(best_losses(self.alone("muon"), results).values()),
            "three_nodes_with_liar": fmean(self.with_liar(results)),
            **super().payload(results),
        }

    def markdown(self, results: Results) -> list[str]:
        """Returns the losses and the goals."""
        lines = loss_table(self, results, [self.alone("muon")])
        for cell, result in results.items():
            if cell.attackers:
                name = f"{self.federation.name}, of which one plays {cell.fault}"
                lines.append(f"| {name} | {rate_of(cell):g} | {mean_loss(result):.3f} | | |")
            elif LAST_TENTH in cell.setting:
                lines.append(
                    f"| {self.last_tenth.name}, nanoGPT's split | {rate_of(cell):g} | {mean_loss(result):.3f} | | |"
                )
        return [*lines, "", *goal_table(self.goals(results))]


class LastTenth(DealtText):
    """A text whose last tenth is held out."""

    def cut(self, file: Path) -> None:
        """Cuts a file into the text of one node and the last tenth."""
        text = file.read_text(encoding="utf-8", errors="replace")
        end = len(text) * 9 // 10
        write_text(self.files(1)[0], text[:end])
        write_text(self._rest, text[end:])

    def held_out(self, recipe: Recipe, count: int) -> dict[str, EvaluationSet]:
        """Returns the last tenth in windows of the context, one after the other."""
        text = self._rest.read_text(encoding="utf-8")
        ids = np.asarray(TOKENIZER.encode(text), dtype=np.int64)
        context = recipe.model.context
        windows = (ids.size - 1) // context
        rows = np.arange(windows)[:, None] * context + np.arange(context + 1)[None, :]
        tokens = ids[rows]
        mask = np.ones((windows, context), dtype=np.bool_)
        return {LAST_TENTH: EvaluationSet(tokens=tokens, mask=mask, num_bytes=windows * context)}

    @property
    def _rest(self) -> Path:
        return self.folder / "rest.txt"
