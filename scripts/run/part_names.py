"""Makes sure that every part that a recipe chooses by name exists, also those that a command does not need."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from clients.attacks.base import check_drill
from server.sinks.registry import SINKS
from strategies.outer.optimizer import OUTER_OPTIMIZERS
from strategies.voting.vote import RULES
from trfmoe_core.config import Recipe
from trfmoe_core.config.load import origin
from trfmoe_core.errors import ConfigError
from trfmoe_core.model.attention.base import ATTENTIONS
from trfmoe_core.model.experts.base import EXPERTS
from trfmoe_core.training.optimizers.base import OPTIMIZERS


def check_part_names(recipe: Recipe, source: str, overrides: Sequence[str] = ()) -> None:
    """Makes sure that the parts exist.

    Args:
        recipe: The recipe.
        source: Its origin, for the message.
        overrides: `a.b=c` of the command line, which it holds already.

    Raises:
        ConfigError: lists all that do not exist, each with its key, and the names there are.
    """
    problems = []
    for check in _checks(recipe):
        try:
            check()
        except ConfigError as error:
            text = str(error)
            problems.append(f"{origin(source, text.partition(':')[0].split('.'), text, overrides)}: {text}")
    if problems:
        raise ConfigError("\n".join(problems))


def _checks(recipe: Recipe) -> Iterator[Callable[[], object]]:
    yield partial(RULES.find, recipe.vote, "vote")
    if recipe.vote_trunk is not None:
        yield partial(RULES.find, recipe.vote_trunk, "vote_trunk")
    yield partial(OUTER_OPTIMIZERS.find, recipe.outer.optimizer, "outer.optimizer")
    yield partial(EXPERTS.find, recipe.model.expert, "model.expert")
    yield partial(ATTENTIONS.find, recipe.model.attention, "model.attention")
    yield partial(OPTIMIZERS.find, recipe.training.optimizer, "training.optimizer")
    for number, name in enumerate(recipe.log.sinks):
        yield partial(SINKS.find, name, f"log.sinks.{number}")
    for number, node in enumerate(recipe.nodes):
        yield partial(check_drill, node, f"nodes.{number}.drill")
