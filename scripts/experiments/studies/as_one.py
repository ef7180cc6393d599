"""The study `as-one`: is a federation's model as good as that of one machine that has all the text?

Both see the same number of tokens in the same number of steps: N nodes with batches of B rows, one machine with
batches of N x B. Every row gets the learning rate that is best for it, out of three in the full form.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, ClassVar

from scripts.experiments.cell import Cell
from scripts.experiments.cell_training import last_nodes
from scripts.experiments.faults import ABSENT
from scripts.experiments.rows import Promise, promise_table
from scripts.experiments.sides import Side
from scripts.experiments.tuned import (
    Results,
    Tuned,
    TunedStudy,
    best_rate,
    goal,
    loss_table,
    mean_loss,
    ratios,
)

BATCH = 12
RECIPE: Mapping[str, object] = {
    "model": {"layers": 4, "width": 128, "heads": 4, "experts": 8, "top_k": 2, "expert_width": 176, "context": 64},
    # Nodes evaluate every round; the study itself measures the last model on all held-out text.
    "data": {"evaluation_tokens": 64},
    "training": {"batch_size": BATCH, "warmup_steps": 25, "device": "cpu", "precision": "float32"},
}
STEPS = 500

RATES = {"adamw": (1e-3, 2e-3, 4e-3), "muon": (4e-3, 8e-3, 16e-3)}
BEST = {"adamw": 2e-3, "muon": 8e-3}
"""Of RATES, those that the small form uses."""

LIAR = "sign_flip"
GOALS = {"fed_over_central_h25": 1.02, "fed_over_central_h10": 1.01, "fed_over_adamw_central": 0.90, "liar_over_absent": 1.02}  # fmt: skip


def one_machine(optimizer: str, parts: int = 3, steps: int = STEPS) -> Side:
    """Returns one machine with as many rows a step as `parts` nodes have together."""
    settings = {
        "training.optimizer": optimizer,
        "training.batch_size": parts * BATCH,
        "rounds.local_steps": 25,
        "rounds.num_rounds": steps // 25,
    }
    return Side(name=_name("one machine", optimizer, parts, steps), parts=parts, nodes=1, settings=settings)


def federation(optimizer: str, local_steps: int, nodes: int = 3, steps: int = STEPS) -> Side:
    """Returns a federation with rounds of `local_steps`."""
    settings = {
        "training.optimizer": optimizer,
        "rounds.local_steps": local_steps,
        "rounds.num_rounds": steps // local_steps,
    }
    name = _name(f"{nodes} nodes, H {local_steps}", optimizer, 3, steps)
    return Side(name=name, parts=nodes, nodes=nodes, settings=settings)


def outer(side: Side, learning_rate: float, momentum: float) -> Side:
    """Returns the federation with Nesterov's momentum at the coordinator."""
    settings = {
        "outer.optimizer": "nesterov",
        "outer.learning_rate": learning_rate,
        "outer.momentum": momentum,
    }
    return replace(
        side, name=f"{side.name}, outer {learning_rate:g}/{momentum:g}", settings={**side.settings, **settings}
    )


@dataclass(frozen=True, kw_only=True)
class AsOneStudy(TunedStudy):
    """Federations and single machines, and a federation with a liar."""

    RECIPE: ClassVar[Mapping[str, object]] = RECIPE

    def tuned(self) -> list[Tuned]:
        """Returns the rows, those of the headline first."""
        headline = [federation("muon", 25), federation("muon", 10), one_machine("muon"), one_machine("adamw")]
        if not self.full:
            return [Tuned(side=side, rates=[BEST[_optimizer(side)]]) for side in headline]
        others = [
            federation("adamw", 25),
            federation("adamw", 10),
            outer(federation("muon", 25), 0.7, 0.6),
            federation("muon", 50),
            federation("muon", 100),
        ]
        long = [one_machine("muon", steps=2000), federation("muon", 25, steps=2000), federation("muon", 10, steps=2000)]
        nine = [one_machine("muon", 9), federation("muon", 25, 9)]
        return [
            *(Tuned(side=side, rates=RATES[_optimizer(side)], seeds=3) for side in headline),
            *(Tuned(side=side, rates=RATES[_optimizer(side)]) for side in [*others, *long, *nine]),
        ]

    def further_cells(self, results: Results) -> list[Cell]:
        """Returns the other seeds of the best rates, and the federation with a liar or without that node."""
        side = federation("muon", 25)
        rate, attackers = best_rate(side, results), last_nodes(side.nodes, 1)
        seeds = range(3 if self.full else 1)
        return [
            *super().further_cells(results),
            *(side.cell(rate, seed, fault, attackers) for seed in seeds for fault in (ABSENT.name, LIAR)),
        ]

    def keeps_answers(self, cell: Cell) -> bool:
        """Returns whether the cell has a faulty node: where the vote rejects it, the honest training is the same."""
        return bool(cell.attackers)

    def shares_with(self, cell: Cell) -> Hashable:
        """Returns the seed for cells with a faulty node, so that one process trains them one after the other."""
        return ("faulty", cell.seed) if cell.attackers else cell

    def headline(self, results: Results) -> dict[str, list[float]]:
        """Returns the ratios that the study is about, one entry a paired seed."""
        muon, adamw = one_machine("muon"), one_machine("adamw")
        h25, h10 = federation("muon", 25), federation("muon", 10)
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
            *loss_table(self, results, [one_machine("muon"), one_machine("adamw")]),
            "",
            *promise_table(self.goals(results)),
        ]

    def _liar(self, results: Results) -> list[float]:
        by_fault: dict[str, dict[int, float]] = {}
        for cell, result in results.items():
            by_fault.setdefault(cell.fault, {})[cell.seed] = mean_loss(result)
        liar, absent = by_fault[LIAR], by_fault[ABSENT.name]
        return [liar[seed] / absent[seed] for seed in sorted(liar.keys() & absent.keys())]


def _name(what: str, optimizer: str, parts: int, steps: int) -> str:
    for_parts = f", for {parts} nodes" if what == "one machine" and parts != 3 else ""
    return f"{what}, {optimizer}{for_parts}" + (f", {steps} steps" if steps != STEPS else "")


def _optimizer(side: Side) -> str:
    return str(side.settings["training.optimizer"])
