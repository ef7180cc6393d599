"""What a plan is made for: a recipe, its tokenizer's size, its blocks, and who would hold which."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch

from strategies.placement.placement import Placement, place
from trfmoe_core.blocks import TRUNK, BlockLayout
from trfmoe_core.config import Recipe
from trfmoe_core.model.local_experts import LocalExperts, local_experts
from trfmoe_core.model.transformer import frozen_shapes, parameter_shapes


@dataclass(frozen=True)
class PlannedRun:
    """A recipe with what follows from it alone.

    Args:
        recipe: The recipe.
        vocab_size: The tokenizer's, padded; a number in the recipe's model comes first.
        zones: Node -> its zone, or None. Empty for a run on one machine.
        device: What a node trains on.
    """

    recipe: Recipe
    vocab_size: int
    zones: Mapping[str, str | None]
    device: torch.device

    @cached_property
    def layout(self) -> BlockLayout:
        """The blocks of the model, which hold what is trained."""
        shapes = parameter_shapes(self.recipe.model, self.vocab_size, freeze=self.recipe.training.freeze)
        return BlockLayout.of(shapes)

    @cached_property
    def placement(self) -> Placement:
        """Who would hold which expert if these nodes came."""
        names = list(self.zones)
        replication, trunk = self.recipe.experts.replication, TRUNK in self.layout.specs
        return place(self.layout.experts, names, zones=self.zones, replication=replication, trunk=trunk)

    @cached_property
    def fullest(self) -> str:
        """The node that holds the most experts."""
        loads = self.placement.loads()
        return max(loads, key=lambda name: (loads[name], name))

    def held_by(self, node: str) -> list[str]:
        """Returns the blocks that a node trains and sends."""
        return self.placement.held_by(node)

    def received_by(self, node: str) -> list[str]:
        """Returns the blocks that a node is sent."""
        return self.held_by(node) if self.recipe.experts.unheld == "absent" else self.layout.names

    def local(self) -> list[LocalExperts] | None:
        """Returns the experts on the fullest node; None: all are there and trained."""
        if not self.zones:
            return None
        return local_experts(self.recipe.model, self.recipe.experts, set(self.held_by(self.fullest)))

    def numel(self, names: list[str]) -> int:
        """Returns the number of parameters of some blocks."""
        return sum(self.layout.specs[name].numel for name in names)

    @cached_property
    def frozen(self) -> BlockLayout:
        """What is never trained, a block for every tensor; it is sent to a node once."""
        shapes = frozen_shapes(self.recipe.model, self.vocab_size, self.recipe.training.freeze)
        return BlockLayout.one_a_tensor(shapes)

    @cached_property
    def full_parameters(self) -> int:
        """Parameters of the same model with every low-rank expert written out in full."""
        model = self.recipe.model
        if model.expert == "low_rank":
            model = model.model_copy(update={"expert": "swiglu"})
        return sum(shape.numel() for shape in parameter_shapes(model, self.vocab_size).values())

    @property
    def trained_parameters(self) -> int:
        """Parameters that are trained."""
        return self.numel(self.layout.names)

    @property
    def frozen_parameters(self) -> int:
        """Parameters that are never trained."""
        return sum(spec.numel for spec in self.frozen.specs.values())

    @property
    def parameters(self) -> int:
        """Parameters of the whole model."""
        return self.trained_parameters + self.frozen_parameters

    @property
    def active_parameters(self) -> int:
        """Parameters that one token uses: without experts that it does not choose and a table that it looks up."""
        model = self.recipe.model
        experts = self.numel(self.layout.experts)
        table = 0 if model.tie_embeddings else (model.vocab_size or self.vocab_size) * model.width
        return self.parameters - experts - table + experts * model.top_k // model.experts

    @property
    def node_parameters(self) -> int:
        """Parameters on the node that holds the most experts."""
        return self.frozen_parameters + self.node_trained_parameters

    @property
    def node_trained_parameters(self) -> int:
        """Parameters of the blocks on the node that holds the most experts."""
        return self.numel(self.received_by(self.fullest)) if self.zones else self.trained_parameters
