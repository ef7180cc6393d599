"""Which experts of a model a node has, and which of them it trains.

E = experts of the whole layer. An expert's *local* number is its place in the stacks on this node, trained ones first.
"""

from collections.abc import Collection
from dataclasses import dataclass

from trfmoe_core.blocks import expert_block
from trfmoe_core.config.model import ExpertsConfig, ModelConfig
from trfmoe_core.errors import ConfigError

REMEDY = "raise model.experts, lower model.top_k, use fewer nodes, or choose experts.unheld: freeze"
"""What to do when a node holds fewer experts of a layer than a token needs."""


@dataclass(frozen=True, kw_only=True)
class LocalExperts:
    """The experts of one layer on this node, by their numbers in the whole layer."""

    num_experts: int
    """Experts of the whole layer."""
    trained: tuple[int, ...]
    frozen: tuple[int, ...] = ()
    """Used, but never changed."""
    restricted: bool = False
    """True: the router picks among the experts present. False: among all, and absent ones add nothing."""

    @property
    def present(self) -> tuple[int, ...]:
        """All experts on this node, in local order."""
        return self.trained + self.frozen

    @property
    def whole(self) -> bool:
        """True if the local numbers are those of the whole layer."""
        return self.present == tuple(range(self.num_experts))

    @property
    def choosable(self) -> int:
        """Experts among which the router picks."""
        return len(self.present) if self.restricted else self.num_experts


def whole_layer(num_experts: int) -> LocalExperts:
    """Returns a layer of which every expert is here and trained."""
    return LocalExperts(num_experts=num_experts, trained=tuple(range(num_experts)))


def local_experts(model: ModelConfig, experts: ExpertsConfig, held: Collection[str]) -> list[LocalExperts]:
    """Returns the local experts of every layer on a node that holds these blocks.

    Raises:
        ConfigError: If the node holds fewer than top-k experts of a layer and has no others (`unheld: absent`).
    """
    layers = []
    for layer in range(model.layers):
        mine = tuple(e for e in range(model.experts) if expert_block(layer, e) in held)
        others = tuple(e for e in range(model.experts) if e not in mine)
        if experts.unheld == "train":
            layers.append(whole_layer(model.experts))
        elif experts.unheld == "freeze":
            layers.append(LocalExperts(num_experts=model.experts, trained=mine, frozen=others))
        else:
            if len(mine) < model.top_k:
                raise ConfigError(
                    f"experts.unheld: absent, and this node holds {len(mine)} of the {model.experts} experts of layer "
                    f"{layer}, but every token needs model.top_k = {model.top_k}; {REMEDY}"
                )
            restricted = experts.absent_routing == "restrict"
            layers.append(LocalExperts(num_experts=model.experts, trained=mine, restricted=restricted))
    return layers
