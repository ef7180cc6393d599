"""The data that `trfmoe data` works on: entries from the command line, or those of a recipe's nodes."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from trfmoe_core.config import NodeSettings, Recipe, load_recipe
from trfmoe_core.config.load import apply_overrides, validate
from trfmoe_core.config.yaml_text import load_yaml
from trfmoe_core.errors import ConfigError
from trfmoe_core.places import expand

if TYPE_CHECKING:
    from scripts.terminal.output import Output
    from trfmoe_core.data.batches.corpus import Corpus
    from trfmoe_core.data.tokenizers import Tokenizer

TYPED = "local"
"""The node that data named on the command line belongs to: `trfmoe train`'s, so seeds and caches are the same."""


@dataclass(frozen=True)
class ChosenData:
    """A recipe and the nodes of it that are meant."""

    recipe: Recipe
    nodes: list[NodeSettings]

    def prepared(self, node: NodeSettings, output: "Output") -> "tuple[Corpus, Tokenizer]":
        """Returns a node's tokens, from the cache where nothing changed, with a bar on a terminal."""
        from clients.settings import cache_folder
        from scripts.terminal.progress import DataProgress
        from trfmoe_core.data.hub.offline import keep_offline
        from trfmoe_core.data.prepare.corpus_cache import prepare_corpus
        from trfmoe_core.data.tokenizers import load_tokenizer

        keep_offline(self.recipe.data)
        tokenizer = load_tokenizer(node.tokenizer or self.recipe.data.tokenizer)
        with DataProgress(output) as progress:
            return prepare_corpus(node.data, self.recipe.data, tokenizer, cache_folder(node), progress), tokenizer


def chosen_data(
    entries: list[str], config: Path | None, node: str | None, tokenizer: str | None, overrides: list[str]
) -> ChosenData:
    """Returns what the command line means.

    Args:
        entries: paths, or mappings such as `{source: fineweb, max_documents: 1000}`; none: those of the recipe.
        config: a recipe; None: the defaults.
        node: the only node of the recipe that is meant.
        tokenizer: in the place of the recipe's.
        overrides: of the recipe.

    Raises:
        ConfigError: nothing is named, or something that is not there.
    """
    from scripts.run.preflight import find_recipe

    overrides = [*overrides, *([f"data.tokenizer={tokenizer}"] if tokenizer else [])]
    if config is not None:
        recipe = load_recipe(find_recipe(config), overrides)
    else:
        recipe = validate(Recipe, apply_overrides({}, overrides), "--set")
    recipe = recipe.resolved(Path.cwd())
    if entries:
        typed = {"name": node or TYPED, "data": [_entry(text) for text in entries]}
        settings = validate(NodeSettings, typed, "the data named")
        return ChosenData(recipe, [settings.relocated(lambda path: str(expand(path).absolute()))])
    nodes = [one for one in recipe.nodes if node in (None, one.name)]
    if not nodes:
        known = ", ".join(one.name for one in recipe.nodes)
        raise ConfigError(
            f"--node {node}: the recipe's nodes are {known}"
            if known
            else "no data: name files and folders, or give --config RECIPE with nodes"
        )
    return ChosenData(recipe, nodes)


def _entry(text: str) -> object:
    if not text.startswith("{"):
        return text
    try:
        return load_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{text}: no mapping in YAML ({str(error).splitlines()[0]}); correct it") from error
