"""The rules that a recipe has to keep where nodes train together. A run on one machine needs none of them."""

from collections.abc import Iterator, Sequence

from trfmoe_core.config.load import origin
from trfmoe_core.config.model import replication_objection
from trfmoe_core.config.recipe import Recipe
from trfmoe_core.errors import ConfigError


def check_federated(recipe: Recipe, source: str = "", overrides: Sequence[str] = ()) -> None:
    """Makes sure that a federation can run a recipe.

    Args:
        recipe: The recipe.
        source: Its origin, for the message.
        overrides: `a.b=c` of the command line, which it holds already.

    Raises:
        ConfigError: lists all rules that it breaks, one a line.
    """
    problems = [*_of_nodes(recipe), *_of_votes(recipe), *_of_momentum(recipe), *_of_length(recipe)]
    if problems:
        keys = [problem.partition(":")[0].split(".") for problem in problems]
        places = [origin(source, key, text, overrides) for key, text in zip(keys, problems, strict=True)]
        lines = zip(places, problems, strict=True)
        raise ConfigError("\n".join(f"{place}: {problem}" if place else problem for place, problem in lines))


def _of_nodes(recipe: Recipe) -> Iterator[str]:
    if recipe.data.sources:
        yield (
            "data.sources: it is the text of a run on one machine (trfmoe train), and in a federation every node has "
            "its own; list them under nodes, each with its data"
        )
    replication = recipe.experts.replication
    if objection := replication_objection(replication):
        yield f"experts.replication: {objection}"
    elif recipe.federation_size < replication:
        key, given = ("nodes", "given") if recipe.nodes else ("num_nodes", "expected")
        yield (
            f"{key}: {recipe.federation_size} {given}, but every expert is trained by {replication} nodes "
            f"(experts.replication); have {replication} or more, or train on this machine alone with trfmoe train"
        )


def _of_votes(recipe: Recipe) -> Iterator[str]:
    quorum, replication = recipe.rounds.quorum, recipe.experts.replication
    if quorum is not None and quorum > replication:
        yield f"rounds.quorum: {quorum} of {replication} replicas (experts.replication); have fewer"
    if recipe.witness is None:
        return
    for key, rule in (("vote", recipe.vote), ("vote_trunk", recipe.rule_of_trunk)):
        if rule != "majority":
            yield f"witness: it judges majority votes, and {key} is {rule}; leave one of the two out"


def _of_momentum(recipe: Recipe) -> Iterator[str]:
    if recipe.rounds.momentum_every is not None and recipe.training.optimizer != "muon":
        yield (
            f"rounds.momentum_every: {recipe.rounds.momentum_every}, but training.optimizer is "
            f"{recipe.training.optimizer}, and only muon's momentum can be shared; leave rounds.momentum_every out"
        )


def _of_length(recipe: Recipe) -> Iterator[str]:
    training, rounds = recipe.training, recipe.rounds
    if training.epochs is not None:
        yield (
            f"training.epochs: {training.epochs:g}, but the nodes of a federation have texts of different "
            "length; give training.steps, training.tokens or rounds.num_rounds instead"
        )
        return
    needed = recipe.rounds_of_budget()
    if needed is not None and needed != rounds.num_rounds:
        name = "steps" if training.steps is not None else "tokens"
        yield (
            f"training.{name}: {getattr(training, name)} make {needed} rounds of "
            f"{rounds.steps_text} (rounds.local_steps), but rounds.num_rounds is {rounds.num_rounds}; leave one of "
            "them out"
        )
