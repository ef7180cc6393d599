"""The study `holders`: three replicas of every expert against nine, and what a node does with experts it lacks.

Nine nodes, 32 experts. With three replicas a node holds a third of them; `experts.unheld` says what it does with the
others: train, freeze or absent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any, ClassVar

from scripts.experiments.cell_training import node_names
from scripts.experiments.rows import Promise
from scripts.experiments.sides import TOKENIZER, Side
from scripts.experiments.small_model import BEST, RATES, STEPS, federation
from scripts.experiments.tuned import (
    Results,
    Tuned,
    TunedStudy,
    best_rate,
    best_results,
    goal,
    goal_table,
    loss_table,
    ratios,
)
from strategies.placement.placement import place
from trfmoe_core.blocks import TRUNK, BlockLayout
from trfmoe_core.model.transformer import build_model

NODES = 9
UNHELD = ("train", "freeze", "absent")
LIMITS = {"train": 1.005, "absent": 1.01}
MOMENTS = {"adamw": 2, "muon": 1}
"""Values that the optimizer keeps of each weight of an expert."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What a node has in memory while it trains, in float32, without activations; the node that has most.

    Attributes:
        held: Parameters on the node.
        total: Parameters of the whole model.
        megabytes: Weights, gradients and moments.
    """

    held: int
    total: int
    megabytes: float


class HoldersStudy(TunedStudy):
    """Nine nodes with three replicas of every expert, by `experts.unheld`, and with nine replicas."""

    STEPS: ClassVar[tuple[int, int]] = (150, STEPS)

    def side(self, unheld: str, replicas: int = 3) -> Side:
        """Returns nine nodes with so many replicas of every expert."""
        plain = federation("muon", 25, NODES, self.steps)
        settings: Mapping[str, object] = {"experts.unheld": unheld, "experts.replication": replicas}
        name = f"{plain.name}, {replicas} replicas" + (f", {unheld}" if replicas < NODES else "")
        return Side(name=name, parts=NODES, nodes=NODES, settings={**plain.settings, **settings})

    @property
    def whole(self) -> Side:
        """Nine replicas: every node holds the whole model."""
        return self.side("train", NODES)

    def tuned(self) -> list[Tuned]:
        """Returns nine replicas and the three settings."""
        sides = [self.whole, *(self.side(unheld) for unheld in UNHELD)]
        rates = RATES["muon"] if self.full else [BEST["muon"]]
        return [Tuned(side=side, rates=rates, seeds=2 if self.full else 1) for side in sides]

    def goals(self, results: Results) -> list[Promise]:
        """Returns the goals."""
        return [
            goal(f"{unheld}: over nine replicas", limit, ratios(self.side(unheld), self.whole, results))
            for unheld, limit in LIMITS.items()
        ]

    def payload(self, results: Results) -> dict[str, Any]:
        """Returns the ratios to nine replicas, and all cells."""
        found = {unheld: fmean(ratios(self.side(unheld), self.whole, results)) for unheld in UNHELD}
        return {"over_nine_replicas": found, **super().payload(results)}

    def markdown(self, results: Results) -> list[str]:
        """Returns losses, memory, bytes and the goals."""
        lines = [
            *loss_table(self, results, [self.whole]),
            "",
            "On the node that has most; memory is computed: float32 weights, gradients and moments, no activations.",
            "Bytes are of a node and round, in float32.",
            "",
            "| | parameters on a node, of the whole model's | MB | MB down | MB up | least used expert |",
            "|---|---|---|---|---|---|",
        ]
        for entry in self.tuned():
            weights = self.weights(entry.side, best_rate(entry.side, results))
            facts = best_results(entry.side, results)[0].facts
            least = min(value for name, value in facts.items() if name.startswith("least"))
            lines.append(
                f"| {entry.side.name} | {weights.held / 1e6:.2f} of {weights.total / 1e6:.2f} million "
                f"| {weights.megabytes:.1f} | {facts['bytes_down'] / 1e6:.1f} | {facts['bytes_up'] / 1e6:.1f} "
                f"| {least:.2f} of an even share |"
            )
        return [*lines, "", *goal_table(self.goals(results))]

    def weights(self, side: Side, rate: float) -> Weights:
        """Returns what the node has in memory that has most."""
        recipe = side.recipe(self.base, rate)
        model = build_model(recipe.model, TOKENIZER.padded_vocab_size, recipe.seed)
        layout = BlockLayout.of(dict(model.named_parameters()))
        sizes = {block: spec.numel for block, spec in layout.specs.items()}
        placement = place(layout.experts, node_names(NODES), replication=recipe.experts.replication)
        held = max(sum(sizes[block] for block in placement.held_by(name)) for name in placement.nodes)
        total = sum(sizes.values())
        on_node = held if recipe.experts.unheld == "absent" else total
        trained = total if recipe.experts.unheld == "train" else held
        moments = trained * MOMENTS[recipe.training.optimizer]
        if recipe.training.optimizer == "muon":
            moments += sizes[TRUNK]  # most of the trunk's values are embedding and head, which have AdamW's two
        return Weights(held=on_node, total=total, megabytes=4e-6 * (on_node + trained + moments))
