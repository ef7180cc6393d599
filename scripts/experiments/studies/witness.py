"""The study of votes among nodes whose texts differ: one domain a node, with and without attackers.

A run with attackers is compared with the run without those nodes, one without attackers with the plain mean.
"""

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.experiments.cell import Cell, Result
from scripts.experiments.cell_in_memory import Domain, Federation
from scripts.experiments.faults import ABSENT, CLEAN, LATE_SIGN_FLIP
from scripts.experiments.rows import Promise, Results, Row, at_most, make_rows, none_of, promise_table
from scripts.experiments.runner import Study, payload
from trfmoe_core.config import Recipe, WitnessConfig, apply_overrides
from trfmoe_core.config.load import validate
from trfmoe_core.places import cache_home

RULES = ("witness", "graph", "mean")
PROMISED = (
    "sign_flip", "scale_x-0.3", "scale_x-3", "scale_x100", "nan", "replay", "stale", "ascent", "inner_product",
    "little_enough",
)  # fmt: skip
"""Attacks of one node that promises are made about."""

FAULTS = (CLEAN.name, *PROMISED, "stale_noisy", LATE_SIGN_FLIP.name, "one_expert")
PAIRED = ("sign_flip", "stale", "ascent", "little_enough")
"""Attacks that several nodes play at once."""

LIMITS = {"witness": (1.005, 1.01, 1.02), "graph": (1.01, 1.03, 1.08)}
"""Rule -> limits of the loss without a fault, of the worst domain without a fault, of the loss with one attacker."""

RECIPE = {
    "model": {"layers": 2, "width": 64, "heads": 4, "experts": 8, "top_k": 2, "expert_width": 96, "context": 64},
    "data": {"held_out": 0.2, "piece_bytes": 1024, "evaluation_tokens": 24576},
    "training": {"batch_size": 12, "learning_rate": 2e-3, "min_learning_rate": 2e-4, "device": "cpu"},
    "rounds": {"num_rounds": 8, "local_steps": 25},
    "witness": {"data": ["-"]},
}


def make_recipe(settings: Sequence[str]) -> Recipe:
    """Returns the study's recipe with `a.b=c` settings.

    Raises:
        ConfigError: A setting is wrong.
    """
    return validate(Recipe, apply_overrides(RECIPE, list(settings)), "--set")


@dataclass(kw_only=True)
class WitnessStudy(Study):
    """Votes times attacks among nodes whose texts differ.

    Attributes:
        recipe: What the cells have in common.
        files: One domain each; node number i has domain i modulo their number.
        counts: Numbers of nodes.
        faults: Names.
        attackers: Choices of attackers, by names of nodes.
        judged_by: Names of the domains that the witness has text of; those that have an owner when empty.
        seeds: Number of paired seeds.
    """

    recipe: Recipe
    files: Sequence[str]
    counts: Sequence[int]
    rules: Sequence[str] = RULES
    faults: Sequence[str] = FAULTS
    attackers: Sequence[tuple[str, ...]] = (("n0",),)
    judged_by: Sequence[str] = ()
    seeds: int = 2
    _federation: dict[tuple[int, int], Federation] = field(default_factory=dict, repr=False)

    def inputs(self) -> object:
        """Returns all that a cell's result depends on besides the code."""
        return [self.recipe.model_dump(mode="json"), [_text_digest(Path(f)) for f in self.files], list(self.judged_by)]

    def cells(self) -> list[Cell]:
        """Returns large federations first: they take longest."""
        return [
            cell
            for count in sorted(self.counts, reverse=True)
            for seed in range(self.seeds)
            for cell in self._cells(count, seed)
        ]

    def reference(self, cell: Cell) -> Cell:
        """Returns the plain mean without the attackers."""
        fault = ABSENT.name if cell.attackers else CLEAN.name
        return Cell(nodes=cell.nodes, rule="mean", seed=cell.seed, fault=fault, attackers=cell.attackers)

    def shares_with(self, cell: Cell) -> Hashable:
        """Returns number of nodes and seed: such cells share most of their training."""
        return cell.nodes, cell.seed

    def train(self, cell: Cell) -> Result:
        """Trains a federation in memory."""
        key = (cell.nodes, cell.seed)
        if key not in self._federation:
            self._federation.clear()
            recipe = self.recipe.model_copy(update={"seed": cell.seed})
            domains = [Domain.read(Path(file), recipe, cache_home()) for file in self.files]
            self._federation[key] = Federation(recipe, domains, cell.nodes, self.judged_by or None)
        return self._federation[key].train(cell)

    def promises(self, rows: Sequence[Row]) -> list[Promise]:
        """Judges runs with one attacker or none."""
        found = []
        for rule, (clean, domain, attacked) in LIMITS.items():
            mine = [row for row in rows if row.rule == rule and row.attackers < 2]
            none = [row for row in mine if row.fault == CLEAN.name]
            wrong = [row for row in mine if row.fault in PROMISED]
            found += at_most(f"{rule}, no fault: loss over that of the mean", clean, none, lambda row: row.highest)
            found += at_most(f"{rule}, no fault: the worst domain", domain, none, lambda row: row.worst)
            text = f"{rule}, one attacker: loss over that without the node"
            found += at_most(text, attacked, wrong, lambda row: row.highest)
            if mine:
                text = f"{rule}: runs in which an honest node loses its seats"
                found.append(none_of(text, [row for row in mine if row.quarantined]))
        return found

    def rows(self, results: Results) -> list[Row]:
        """Returns the rows of the table; those that others are compared with have none."""
        rows = make_rows(results, self.reference, [*self.faults, *RULES])
        return [row for row in rows if row.fault != ABSENT.name and (row.rule, row.fault) != ("mean", CLEAN.name)]

    def payload(self, results: dict[Cell, Result]) -> dict[str, Any]:
        """Returns the study for programs."""
        return payload(self, self.rows(results), results)

    def markdown(self, results: Results) -> list[str]:
        """Returns one table for every number of nodes and of attackers, and the promises."""
        rows = self.rows(results)
        lines = []
        for nodes in sorted({row.nodes for row in rows}):
            for attackers in sorted({max(1, row.attackers) for row in rows if row.nodes == nodes}):
                title = f"## {nodes} nodes" + (f", {attackers} attackers at once" if attackers > 1 else "")
                shown = {0, 1} if attackers == 1 else {attackers}
                here = [row for row in rows if row.nodes == nodes and row.attackers in shown]
                lines += ["", title, "", *_table(here)]
        return [*lines, "", "## Promises", "", *promise_table(self.promises(rows))]

    def preface(self, command: str) -> list[str]:
        """Returns what stands above the tables."""
        recipe, model, rounds = self.recipe, self.recipe.model, self.recipe.rounds
        witness = recipe.witness or WitnessConfig(data=["-"])
        judged = ", ".join(f"{k} {v}" for k, v in witness.model_dump(exclude={"data", "device", "salt"}).items())
        return [
            "# Votes among nodes whose texts differ",
            "",
            "Written by `trfmoe bench witness`.",
            "",
            f"Command: `{command}`.  ",
            f"Domains, in the order of the nodes: {', '.join(Path(file).stem for file in self.files)}.  ",
            f"Seeds: {self.seeds}; {model.layers} layers of width {model.width}, {model.experts} experts, "
            f"{rounds.num_rounds} rounds of {rounds.steps_text}; agreement.cosine {recipe.agreement.cosine:g}; "
            f"witness: {judged}. "
            "The witness reads windows of the same files, of pieces that nobody trains or is measured on.  ",
            "",
            "Held-out loss, mean over the domains, as a multiple of that of the plain mean (no fault) or of the run",
            "without the attackers: mean and range over the seeds, and in brackets the worst domain of any run.",
            "`named`: rounds of a run in which an attacker was convicted or stood alone, and single experts of it that",
            "were struck. `honest`: the most rounds of any run in which an honest node was convicted or stood alone.",
        ]

    def _cells(self, count: int, seed: int) -> list[Cell]:
        names = {f"n{number}" for number in range(count)}

        def cell(rule: str, fault: str = CLEAN.name, attackers: tuple[str, ...] = ()) -> Cell:
            return Cell(nodes=count, rule=rule, seed=seed, fault=fault, attackers=attackers)

        cells = [cell("mean")]
        cells += [cell(rule) for rule in self.rules if rule != "mean" and CLEAN.name in self.faults]
        for attackers in self.attackers:
            # At least two honest nodes must be left, or there is nothing to defend.
            if not names.issuperset(attackers) or count - len(attackers) < 2:
                continue
            played = [
                fault for fault in self.faults if fault != CLEAN.name and (len(attackers) == 1 or fault in PAIRED)
            ]
            if played:
                cells.append(cell("mean", ABSENT.name, attackers))
            cells += [cell(rule, fault, attackers) for rule in self.rules for fault in played]
        return cells


def _text_digest(domain: Path) -> str:
    """Returns the SHA-256 of a file, or of all files of a folder, in hexadecimal."""
    found = hashlib.sha256(domain.stem.encode())
    for path in sorted(domain.rglob("*")) if domain.is_dir() else [domain]:
        if path.is_file():
            found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


def _table(rows: Sequence[Row]) -> list[str]:
    rules = [rule for rule in RULES if any(row.rule == rule for row in rows)]
    lines = ["| attack | " + " | ".join(f"{rule} | named | honest" for rule in rules) + " |"]
    lines.append("|---" * (1 + 3 * len(rules)) + "|")
    for fault in dict.fromkeys(row.fault for row in rows):
        found = {row.rule: row for row in rows if row.fault == fault}
        shown = [part for rule in rules for part in (_shown(found[rule]) if rule in found else [""] * 3)]
        lines.append(f"| {' | '.join([fault, *shown])} |")
    return lines


def _shown(row: Row) -> list[str]:
    named = "" if not row.attackers else f"{row.any_named:.3g}" + (f" + {row.struck:.3g}" if row.struck else "")
    return [f"{row.text} [{row.worst or float('nan'):.3f}]", named, str(row.honest_named)]
