"""The study `as-one`: is a federation's model as good as that of one machine that has all the text?

Both see the same number of tokens in the same number of steps: N nodes with batches of B rows, one machine with
batches of N x B. Every row gets the learning rate that is best for it, out of three in the full form.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from scripts.experiments.cell import Cell
from scripts.experiments.cell_training import last_nodes
from scripts.experiments.faults import ABSENT
from scripts.experiments.rows import Promise
from scripts.experiments.sides import Side
from scripts.experiments.small_model import BEST, RATES, federation, one_machine, optimizer_of, outer, shared_momentum
from scripts.experiments.tuned import (
    Results,
    Tuned,
    TunedStudy,
    best_rate,
    goal,
    goal_table,
    loss_table,
    mean_loss,
    ratios,
)

LIAR = "sign_flip"
SCHEDULES = ({1: 10, 6: 20, 11: 30, 16: 40}, {1: 5, 21: 10, 31: 25})
"""Of local steps: as many rounds as with 25, but longer as the rate falls (arXiv 2310.14423); and short ones early."""
GOALS = {
    "fed_over_central_h25": 1.02,
    "fed_over_central_h10": 1.01,
    "fed_over_adamw_central": 0.90,
    "liar_over_absent": 1.02,
}


@dataclass(frozen=True, kw_only=True)
class AsOneStudy(TunedStudy):
    """Federations and single machines, and a federation with a liar."""

    def side(
        self, optimizer: str, local_steps: int | dict[int, int] | None = None, nodes: int = 3, times: int = 1
    ) -> Side:
        """Returns a federation with rounds of `local_steps`; None: one machine. `times` makes the run longer."""
        steps = times * self.steps
        if local_steps is None:
            return one_machine(optimizer, nodes, steps)
        return federation(optimizer, local_steps, nodes, steps)

    def sharing(self, local_steps: int) -> Side:
        """Returns the federation of the headline: with Muon, whose momentum its nodes share in every round."""
        return shared_momentum(self.side("muon", local_steps), 1)

    def tuned(self) -> list[Tuned]:
        """Returns the rows, those of the headline first."""
        headline = [self.sharing(25), self.side("muon", 25), self.sharing(10), self.side("muon"), self.side("adamw")]
        if not self.full:
            return [Tuned(side=side, rates=[BEST[optimizer_of(side)]]) for side in headline]
        others = [
            self.side("adamw", 25),
            self.side("adamw", 10),
            outer(self.side("muon", 25), 0.7, 0.6),
            self.side("muon", 50),
            self.side("muon", 100),
            self.side("muon", 10),
            shared_momentum(self.side("muon", 25), 2),
            *(self.side("muon", schedule) for schedule in SCHEDULES),
            *(shared_momentum(self.side("muon", schedule), 1) for schedule in SCHEDULES),
        ]
        long = [self.side("muon", local_steps, times=4) for local_steps in (None, 25, 10)]
        nine = [self.side("muon", local_steps, 9) for local_steps in (None, 25)]
        return [
            *(Tuned(side=side, rates=RATES[optimizer_of(side)], seeds=3) for side in headline),
            *(Tuned(side=side, rates=RATES[optimizer_of(side)]) for side in [*others, *long, *nine]),
        ]

    def further_cells(self, results: Results) -> list[Cell]:
        """Returns the other seeds of the best rates, and the federation with a liar or without that node."""
        side = self.side("muon", 25)
        rate, attackers = best_rate(side, results), last_nodes(side.nodes, 1)
        return [
            *super().further_cells(results),
            *(side.cell(rate, seed, fault, attackers) for seed in self.seeds_of(3) for fault in (ABSENT.name, LIAR)),
        ]

    def keeps_answers(self, cell: Cell) -> bool:
        """Returns whether the cell has a faulty node: where the vote rejects it, the honest training is the same."""
        return bool(cell.attackers)

    def shares_with(self, cell: Cell) -> Hashable:
        """Returns the seed for cells with a faulty node, so that one process trains them one after the other."""
        return ("faulty", cell.seed) if cell.attackers else cell

    def headline(self, results: Results) -> dict[str, list[float]]:
        """Returns the ratios that the study is about, one entry a paired seed."""
        muon, adamw = self.side("muon"), self.side("adamw")
        h25, h10 = self.sharing(25), self.sharing(10)
        return {
            "fed_over_central_h25": ratios(h25, muon, results),
            "fed_over_central_h10": ratios(h10, muon, results),
            "fed_over_adamw_central": ratios(h25, adamw, results),
            "liar_over_absent": self._liar(results),
        }

    def payload(self, results: Results) -> dict[str, Any]:
        """Returns the means of the headline's ratios, and all of them."""
        found = self.headline(results)
        return {
            **{name: fmean(values) for name, values in found.items()},
            "ratios": found,
            **super().payload(results),
        }

    def goals(self, results: Results) -> list[Promise]:
        """Returns the goals."""
        found = self.headline(results)
        return [goal(name, GOALS[name], values) for name, values in found.items()]

    def markdown(self, results: Results) -> list[str]:
        """Returns the losses of all rows, the ratios and the goals."""
        return [
            *loss_table(self, results, [self.side("muon"), self.side("adamw")]),
            "",
            *goal_table(self.goals(results)),
        ]

    def _liar(self, results: Results) -> list[float]:
        by_fault: dict[str, dict[int, float]] = {}
        for cell, result in results.items():
            by_fault.setdefault(cell.fault, {})[cell.seed] = mean_loss(result)
        liar, absent = by_fault[LIAR], by_fault[ABSENT.name]
        return [liar[seed] / absent[seed] for seed in sorted(liar.keys() & absent.keys())]
