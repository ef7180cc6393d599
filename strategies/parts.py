"""The parts of the coordinator that a recipe chooses by name."""

from strategies.outer.optimizer import OUTER_OPTIMIZERS
from strategies.voting.vote import RULES
from trfmoe_core.config import Recipe


def check_parts(recipe: Recipe) -> None:
    """Makes sure that the vote rules and the outer optimizer of a recipe exist.

    Raises:
        ConfigError: one does not.
    """
    RULES.find(recipe.vote, "vote")
    RULES.find(recipe.rule_of_trunk, "vote_trunk")
    OUTER_OPTIMIZERS.find(recipe.outer.optimizer)
