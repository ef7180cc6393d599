"""The study `liar`: what one liar of three costs under this product's vote and under rivals' rules.

A run with a liar is compared with the run without that node under `majority`, seed by seed, on the same held-out text.
"""

from collections.abc import Hashable, Iterator
from dataclasses import replace
from statistics import fmean
from typing import Any, ClassVar

from scripts.experiments.cell import Cell, Result
from scripts.experiments.cell_training import last_nodes
from scripts.experiments.faults import ABSENT, CLEAN, FAULTS
from scripts.experiments.rivals import krum, single_owner
from scripts.experiments.rows import Promise
from scripts.experiments.sides import Side
from scripts.experiments.small_model import BEST, RATES, STEPS, federation
from scripts.experiments.tuned import Results, Tuned, TunedStudy, best_rate, goal, goal_table, mean_loss, shown

PROMISED = ("sign_flip", "scale_x100", "ascent", "stays_close")
RULES = ("majority", "median", "krum", "single_owner", "mean")
RIVALS = {"krum": krum.krum_rule, "single_owner": single_owner.single_owner_rule}
"""Rules that the import of their files has registered."""
OVER_ABSENT = 1.02


class LiarStudy(TunedStudy):
    """Attacks times rules, on the federation with Muon and rounds of 25 steps."""

    STEPS: ClassVar[tuple[int, int]] = (200, STEPS)
    PLAYED: ClassVar[tuple[str, ...]] = tuple(
        fault.name for fault in FAULTS.values() if fault.kind != "silent" and fault.everywhere and fault != CLEAN
    )

    @property
    def side(self) -> Side:
        """The federation."""
        return federation("muon", 25, steps=self.steps)

    def tuned(self) -> list[Tuned]:
        """Returns the federation without a liar."""
        rates = RATES["muon"] if self.full else [BEST["muon"]]
        return [Tuned(side=self.side, rates=rates, seeds=3 if self.full else 1)]

    def further_cells(self, results: Results) -> list[Cell]:
        """Returns the other seeds, the run without the node, and every attack under every rule."""
        rate = best_rate(self.side, results)
        return [*super().further_cells(results), *(cell for rule in RULES for cell in self._cells(rule, rate))]

    def side_of(self, cell: Cell) -> Side:
        """Returns the federation; the rule of a cell is its own."""
        return self.side

    def keeps_answers(self, cell: Cell) -> bool:
        """Returns whether the vote may reject a faulty node, so that the honest training is the same as without it."""
        return bool(cell.attackers) and cell.rule == "majority"

    def shares_with(self, cell: Cell) -> Hashable:
        """Returns the seed for cells whose honest training is mostly the same."""
        return ("majority", cell.seed) if self.keeps_answers(cell) else cell

    def over_absent(self, results: Results) -> dict[tuple[str, str], list[float | None]]:
        """Returns (fault, rule) -> ratios to the run without the node; None: no model came out."""
        faulty = {cell: result for cell, result in results.items() if cell.rule in RULES and cell.setting}
        absent = {cell.seed: mean_loss(result) for cell, result in faulty.items() if cell.fault == ABSENT.name}
        found: dict[tuple[str, str], list[float | None]] = {}
        for cell, result in sorted(faulty.items(), key=lambda pair: pair[0].seed):
            if cell.fault != ABSENT.name and cell.seed in absent and cell.setting == self._setting(results):
                ratio = mean_loss(result) / absent[cell.seed] if result.losses else None
                found.setdefault((cell.fault, cell.rule), []).append(ratio)
        return found

    def goals(self, results: Results) -> list[Promise]:
        """Returns the goals of `majority`."""
        found = self.over_absent(results)
        return [
            goal(f"{fault}: over the run without the node", OVER_ABSENT, _known(found.get((fault, "majority"), [])))
            for fault in PROMISED
        ]

    def payload(self, results: Results) -> dict[str, Any]:
        """Returns the ratios of every rule and attack, and all cells."""
        found = self.over_absent(results)
        worst = [
            fmean(_known(found[fault, "majority"])) for fault in PROMISED if _known(found.get((fault, "majority"), []))
        ]
        return {
            "liar_over_absent": max(worst),
            "ratios": {f"{rule}, {fault}": values for (fault, rule), values in found.items()},
            **super().payload(results),
        }

    def markdown(self, results: Results) -> list[str]:
        """Returns one row an attack, one column a rule, and the goals."""
        found = self.over_absent(results)
        absent = [result for cell, result in results.items() if cell.fault == ABSENT.name]
        lines = [
            f"{self.side.name}, rate {best_rate(self.side, results):g}. Without the node: "
            f"{shown([mean_loss(result) for result in absent])} nats. Median is Yin et al.'s of every coordinate; Krum",
            "chooses one replica of each block; with a single owner one node decides a block, unchecked.",
            "",
            f"| over the run without the node | {' | '.join(RULES)} | faulty: rounds blamed; honest |",
            "|---" * (2 + len(RULES)) + "|",
        ]
        for fault in dict.fromkeys(fault for fault, _ in found):
            shown_rules = [_shown(found.get((fault, rule), [])) for rule in RULES]
            mine = [result for cell, result in results.items() if (cell.fault, cell.rule) == (fault, "majority")]
            lines.append(f"| {' | '.join([fault, *shown_rules, _blame(mine)])} |")
        return [*lines, "", *goal_table(self.goals(results))]

    def _cells(self, rule: str, rate: float) -> Iterator[Cell]:
        attackers = last_nodes(self.side.nodes, 1)
        seeds = self.seeds_of(3) if rule == "majority" else range(1)
        played = self.PLAYED if self.full else PROMISED if rule == "majority" else PROMISED[:1]
        for seed in seeds:
            if rule == "majority":
                yield self._cell(rule, rate, seed, ABSENT.name, attackers)
            elif self.full:
                yield self._cell(rule, rate, seed, CLEAN.name, ())
            for fault in played:
                yield self._cell(rule, rate, seed, fault, attackers)

    def _cell(self, rule: str, rate: float, seed: int, fault: str, attackers: tuple[str, ...]) -> Cell:
        return replace(self.side, rule=rule).cell(rate, seed, fault, attackers)

    def _setting(self, results: Results) -> str:
        return self.side.cell(best_rate(self.side, results), 0).setting


def _known(ratios: list[float | None]) -> list[float]:
    return [ratio for ratio in ratios if ratio is not None]


def _shown(ratios: list[float | None]) -> str:
    return "lost" if None in ratios else shown(_known(ratios))


def _blame(results: list[Result]) -> str:
    """Returns in how many rounds the faulty node was blamed, and an honest one, mean over the runs."""
    faulty = [sum(bool(set(r.blamed) & set(found.cell.attackers)) for r in found.rounds) for found in results]
    honest = [sum(bool(set(r.blamed) - set(found.cell.attackers)) for r in found.rounds) for found in results]
    return f"{fmean(faulty):.3g} of {len(results[0].rounds)}; {fmean(honest):.3g}" if results else ""
