"""The study `domains`: one domain a node, against one machine that trains on the mixture.

Each text is the domain of one node or of several. The machine that is compared with reads every node's text equally
often, as the federation does.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, ClassVar

from scripts.experiments.rows import Promise
from scripts.experiments.sides import Side
from scripts.experiments.small_model import BEST, RATES, federation, one_machine, optimizer_of, shared_momentum
from scripts.experiments.tuned import (
    Results,
    Tuned,
    TunedStudy,
    best_results,
    goal,
    goal_table,
    loss_table,
    ratios,
    shown,
)

LARGE = 9
OVER_CENTRAL, WORST_DOMAIN = 1.03, 1.06


class DomainsStudy(TunedStudy):
    """A federation of strangers, and one machine with all their texts."""

    by_domain: ClassVar[bool] = True

    def counts(self) -> list[int]:
        """Returns the numbers of nodes: one a domain, and in the full form nine."""
        own = max(3, len(self.text.names))
        return sorted({own, LARGE}) if self.full else [own]

    def pairs(self) -> list[tuple[Side, Side]]:
        """Returns every federation with the machine that it is compared with, those of the goals first."""
        pairs = []
        for count in self.counts():
            muon, adamw = (one_machine(name, count, self.steps) for name in ("muon", "adamw"))
            long, short = (federation("muon", local_steps, count, self.steps) for local_steps in (25, 10))
            pairs += [(shared_momentum(short, 1), muon), (long, muon)]
            if self.full:
                pairs += [(shared_momentum(long, 1), muon), (federation("adamw", 25, count, self.steps), adamw)]
        return pairs

    def tuned(self) -> list[Tuned]:
        """Returns both sides of every pair."""
        sides = list({side.name: side for pair in self.pairs() for side in pair}.values())
        if not self.full:
            return [Tuned(side=side, rates=[BEST[optimizer_of(side)]]) for side in sides]
        return [
            Tuned(side=side, rates=RATES[optimizer_of(side)], seeds=3 if side.parts < LARGE else 1) for side in sides
        ]

    def by_text(self, results: Results, fed: Side, central: Side) -> dict[str, list[float]]:
        """Returns the ratios of each domain's losses, one entry a paired seed."""
        mine, theirs = best_results(fed, results), best_results(central, results)
        seeds = sorted(mine.keys() & theirs.keys())
        names = mine[seeds[0]].losses if seeds else {}
        return {name: [mine[seed].losses[name] / theirs[seed].losses[name] for seed in seeds] for name in names}

    def goals(self, results: Results) -> list[Promise]:
        """Returns the goals, for the short rounds in which strangers share their momentum."""
        found = []
        for fed, central in self.pairs():
            if "rounds.momentum_every" in fed.settings and fed.settings["rounds.local_steps"] == 10:
                found.append(goal(f"{fed.name}: over one machine", OVER_CENTRAL, ratios(fed, central, results)))
                of_text = self.by_text(results, fed, central)
                worst = max(of_text, key=lambda name: fmean(of_text[name]))
                found.append(goal(f"{fed.name}: worst domain, {worst}", WORST_DOMAIN, of_text[worst]))
        return found

    def payload(self, results: Results) -> dict[str, Any]:
        """Returns the goals' ratios by name, and all cells."""
        fed, central = self.pairs()[0]
        of_text = self.by_text(results, fed, central)
        return {
            "fed_over_central": fmean(ratios(fed, central, results)),
            "worst_domain": max(fmean(values) for values in of_text.values()),
            "domain_ratios": of_text,
            **super().payload(results),
        }

    def markdown(self, results: Results) -> list[str]:
        """Returns losses, ratios a domain, the use of the experts, and the goals."""
        machines = {central.name: central for _, central in self.pairs()}
        lines = loss_table(self, results, list(machines.values()))
        names = self.text.names
        lines += ["", f"| over one machine | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
        for fed, central in self.pairs():
            of_text = self.by_text(results, fed, central)
            lines.append(f"| {fed.name} | {' | '.join(shown(of_text[name]) for name in names)} |")
        lines += ["", *self._load_table(results, names), "", *goal_table(self.goals(results))]
        return lines

    def _load_table(self, results: Results, names: Sequence[str]) -> list[str]:
        lines = [
            "Least and most used expert of any layer, in multiples of an even share, on each domain; and how much the",
            "shares differ from domain to domain (0: alike, 1: no expert in common).",
            "",
            f"| | {' | '.join(names)} | difference |",
            "|---" * (2 + len(names)) + "|",
        ]
        for entry in self.tuned():
            facts: Mapping[str, float] = best_results(entry.side, results)[0].facts
            shares = [f"{facts[f'least, {name}']:.2f}, {facts[f'most, {name}']:.2f}" for name in names]
            lines.append(f"| {entry.side.name} | {' | '.join(shares)} | {facts['difference']:.3f} |")
        return lines
