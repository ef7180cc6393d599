"""The recipe of a run on one machine: all text in one place, without nodes."""

from pathlib import Path

from trfmoe_core.config import Recipe
from trfmoe_core.config.sources import DataEntry
from trfmoe_core.errors import ConfigError
from trfmoe_core.places import expand

SUFFIX = "-local"
_NUM_NODES = Recipe.model_fields["num_nodes"].default


def local_recipe(recipe: Recipe, pdfs: list[Path]) -> Recipe:
    """Returns the recipe of a run on this machine alone. Its text is `pdfs`, else the recipe's own, else its nodes'.

    What the only node of a recipe says of its device, threads and tokenizer holds for the run.
    """
    named: list[DataEntry] = [str(expand(path).absolute()) for path in pdfs]
    sources = named or [
        *recipe.data.sources,
        *(entry for node in recipe.nodes for entry in node.data),
    ]
    data = recipe.data.model_copy(update={"sources": sources})
    training = recipe.training
    if len(recipe.nodes) == 1:
        node = recipe.nodes[0]
        own = {"device": node.device, "devices": node.devices, "threads": node.threads}
        training = training.model_copy(update={key: value for key, value in own.items() if value is not None})
        data = data.model_copy(update={"tokenizer": node.tokenizer or data.tokenizer})
    return recipe.model_copy(update={"data": data, "training": training, "nodes": [], "num_nodes": _NUM_NODES})


def local_name(name: str) -> str:
    """Returns the name of a run on one machine, so that it never shares a folder with a federation's run."""
    return name if name.endswith(SUFFIX) else f"{name[: 64 - len(SUFFIX)]}{SUFFIX}"


def check_text(recipe: Recipe) -> None:
    """Makes sure that there is text to train on.

    Raises:
        ConfigError: there is none.
    """
    if not recipe.data.sources:
        raise ConfigError(
            "data.sources: the recipe names no text to train on; add files and folders there, such as "
            "`data: {sources: [papers]}`, or give --pdfs DIR"
        )
