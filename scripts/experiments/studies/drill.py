"""The drill: every fault under every vote, on text that is alike on all nodes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.experiments.cell import Cell, Result
from scripts.experiments.cell_training import last_nodes, train_cell
from scripts.experiments.faults import ABSENT, CLEAN, FAULTS, Fault, find_fault
from scripts.experiments.rows import Promise, Results, Row, at_most, make_rows, none_of, promise_table
from scripts.experiments.runner import Study, payload
from trfmoe_core.config import Recipe, recipe_hash

RULES = ("majority", "median", "mean")
HARMFUL = 1.02
"""A fault is harmful when the plain mean ends this many times above the run without it, or is lost."""

PAIR_NODES = 7
"""From this many nodes on two attackers are tried as well: below, any two hold whole experts between them."""

PAIRED = ("sign_flip", "label_flip", "inner_product", "little_enough", "stays_close")
QUICK_FAULTS = ("none", "crash", "nan", "sign_flip", "scale_x100", "stays_close")


@dataclass(frozen=True, kw_only=True)
class DrillStudy(Study):
    """Faults times votes.

    Attributes:
        recipe: What the cells have in common.
        folder: Holds the nodes' texts and, while cells are trained, their answers.
        counts: Numbers of nodes.
        faults: Names; all of the table when empty.
        seeds: Number of paired seeds under `majority`. The other rules are there to show what is lost, and have one.
        rules: The first is `majority`.
    """

    recipe: Recipe
    folder: Path
    counts: Sequence[int]
    faults: Sequence[str] = ()
    seeds: int = 3
    rules: Sequence[str] = RULES

    @property
    def texts(self) -> Path:
        """Folder of the nodes' texts."""
        return self.folder / "texts"

    @property
    def answers(self) -> Path:
        """Folder of the nodes' answers: large, and of use only while cells are trained."""
        return self.folder / "answers"

    def cells(self) -> list[Cell]:
        """Returns large federations first: they take longest."""
        wanted: dict[Cell, None] = {}
        for count in sorted(self.counts, reverse=True):
            for fault, attackers in self._faults_for(count):
                for rule in self.rules if fault.everywhere else self.rules[:1]:
                    for seed in range(self.seeds if rule == "majority" or fault == CLEAN else 1):
                        names = last_nodes(count, attackers)
                        wanted[Cell(nodes=count, rule=rule, seed=seed, fault=fault.name, attackers=names)] = None
        return list({self.reference(cell): None for cell in wanted} | wanted)

    def reference(self, cell: Cell) -> Cell:
        """Returns the mean without faults; for a node that sends nothing that counts, the mean without that node."""
        if find_fault(cell.fault).kind == "silent":
            names = last_nodes(cell.nodes, 1)
            return Cell(nodes=cell.nodes, rule="mean", seed=cell.seed, fault=ABSENT.name, attackers=names)
        return Cell(nodes=cell.nodes, rule="mean", seed=cell.seed)

    def train(self, cell: Cell) -> Result:
        """Trains a federation with the real coordinator and clients."""
        return train_cell(self.recipe, cell, self.texts, self.answers)

    def promises(self, rows: Sequence[Row]) -> list[Promise]:
        """Judges `majority` with one faulty node or none."""
        single = [row for row in rows if row.rule == "majority" and row.attackers < 2]

        def of_kind(*kinds: str) -> list[Row]:
            return [row for row in single if find_fault(row.fault).kind in kinds]

        adaptive = of_kind("adaptive")
        small = [row for row in adaptive if row.nodes < PAIR_NODES]
        large = [row for row in adaptive if row.nodes >= PAIR_NODES]
        harmful = {
            (row.nodes, row.fault)
            for row in rows
            if row.rule == "mean" and row.attackers < 2 and (row.ratio is None or row.ratio > HARMFUL)
        }
        hidden = [row for row in single if (row.nodes, row.fault) in harmful and not row.most_lost]
        return [
            *at_most("without faults, of the mean", 1.01, of_kind("clean"), _ratio),
            *at_most("plain and silent faults", 1.03, of_kind("plain", "silent"), _ratio),
            *at_most("adaptive attacks, 3 nodes", 1.15, small, _ratio),
            *at_most("adaptive attacks, 7 and 9 nodes", 1.10, large, _ratio),
            none_of("every run ends", [row for row in rows if not row.ended]),
            none_of("faults that harm the mean where the faulty node is not the one that lost most", hidden),
        ]

    def rows(self, results: Results) -> list[Row]:
        """Returns the rows of the table, in the order of the faults."""
        return make_rows(results, self.reference, [*FAULTS, *self.rules])

    def payload(self, results: dict[Cell, Result]) -> dict[str, Any]:
        """Returns the drill for programs."""
        rows = self.rows(results)
        told = payload(self, rows, results)
        told["cells"] = told.pop("rows")
        lost = [f"{row.label}, {row.nodes} nodes, {row.rule}" for row in rows if row.ratio is None]
        return {**{f"{rule}_worst": worst(rows, rule) for rule in RULES}, "lost": lost, **told}

    def markdown(self, results: Results) -> list[str]:
        """Returns one table for every number of nodes, and the promises."""
        rows = self.rows(results)
        lines = []
        for nodes in sorted({row.nodes for row in rows}):
            lines += ["", f"## {nodes} nodes", ""]
            lines += ["| fault | majority | median | mean | faulty: rounds, blocks | honest: most blocks |"]
            lines += ["|---|---|---|---|---|---|"]
            for label in dict.fromkeys(row.label for row in rows if row.nodes == nodes):
                found = {row.rule: row for row in rows if (row.nodes, row.label) == (nodes, label)}
                texts = [found[rule].text if rule in found else "" for rule in RULES]
                voted = found.get("majority")
                faulty = f"{voted.named:.3g}, {voted.blocks}" if voted and voted.attackers else ""
                honest = str(voted.honest_blocks) if voted else ""
                lines.append(f"| {' | '.join([label, *texts, faulty, honest])} |")
        return [*lines, "", "## Promises of `majority`, one faulty node", "", *promise_table(self.promises(rows))]

    def preface(self, results: Results) -> list[str]:
        """Returns what stands above the tables in docs/results/."""
        recipe, model, rounds = self.recipe, self.recipe.model, self.recipe.rounds
        return [
            "# The drill: faults times votes",
            "",
            "Written by `trfmoe drill`. Held-out loss of the honest nodes, as a multiple of the same nodes' loss in",
            "the run without faults under the plain mean; for a node that sends nothing that counts (crashes,",
            "silence, NaN, broken bytes) in the run without that node. `lost`: no model that an honest node could",
            f"measure. Majority: mean and range over {self.seeds} paired seeds; median and mean: one seed, except",
            "without faults. The last columns are of `majority`: in how many rounds the faulty node lost a vote or its",
            "reply was dropped or missing, how many blocks that cost it (the least over seeds), and the most that an",
            "honest node lost. What each fault is: `trfmoe drill --list`.",
            "",
            f"Model: {model.layers} layers, width {model.width}, {model.experts} experts a layer, top {model.top_k}; "
            f"{rounds.num_rounds} rounds of {rounds.steps_text} of {recipe.training.batch_size} x "
            f"{model.context} tokens; agreement.cosine {recipe.agreement.cosine:g}, margin "
            f"{recipe.agreement.margin:g}; recipe {recipe_hash(recipe)[:12]}.",
            f"Cells: {len(results)}.",
        ]

    def _faults_for(self, count: int) -> list[tuple[Fault, int]]:
        """Returns the faults that a federation of this size is tried with, and how many nodes play each."""
        chosen = [find_fault(name) for name in self.faults] or list(FAULTS.values())
        single = [(fault, 0 if fault == CLEAN else 1) for fault in chosen if fault.everywhere or count < PAIR_NODES]
        pairs = [(fault, 2) for fault in chosen if fault.name in PAIRED and count >= PAIR_NODES]
        return [*single, *pairs]


def worst(rows: Iterable[Row], rule: str) -> float | None:
    """Returns the largest ratio of a rule with one faulty node, among the runs from which a model came out."""
    found = [row.ratio for row in rows if row.rule == rule and row.attackers < 2]
    return max((ratio for ratio in found if ratio is not None), default=None)


def _ratio(row: Row) -> float | None:
    return row.ratio
