"""Who this node is and where its text lies.

A node of a deployment says it itself, by its own YAML file or by `--node-config`; in a simulation the recipe's `nodes`
play that part.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import platformdirs

from trfmoe_core.config import NodeSettings, Recipe, load_node_file, load_recipe
from trfmoe_core.config.load import validate
from trfmoe_core.errors import ConfigError
from trfmoe_core.places import cache_home, expand, inside, no_home, tokenizer_place
from trfmoe_core.processors import resolve_threads

_FLOWER_KEYS = {"partition-id", "num-partitions"}


def node_settings(node_config: Mapping[str, Any], recipe_path: Path, home: Path) -> NodeSettings:
    """Returns this node's settings with absolute paths.

    Args:
        node_config: Flower's node configuration. `settings="FILE"` names the node's own YAML file; or `name=`, `data=`
            (several paths separated by `:`), `zone=`, ... are given one by one; or there is only `partition-id`, as in
            a simulation, and the recipe's list of nodes says the rest.
        recipe_path: The recipe, read only in the last case.
        home: What relative paths are relative to.

    Raises:
        ConfigError: when the settings are missing or wrong.
    """
    settings = _settings(node_config, recipe_path, home)
    if settings.drill is not None:
        from clients.attacks.base import check_drill  # it needs torch, which preparing data does not

        check_drill(settings)
    return settings


def _settings(node_config: Mapping[str, Any], recipe_path: Path, home: Path) -> NodeSettings:
    own = {key: value for key, value in node_config.items() if key not in _FLOWER_KEYS}
    if "settings" in own:
        return load_node_file(Path(str(own["settings"])))
    if own:
        return _from_pairs(own, home)
    if "partition-id" not in node_config:
        raise ConfigError(
            'this node does not know who it is; start it with --node-config \'name="NAME" data="FOLDER:FILE"\' '
            "or --node-config 'settings=\"NODE.yaml\"'"
        )
    number = int(node_config["partition-id"])
    recipe = load_recipe(recipe_path).resolved(home)
    if number >= len(recipe.nodes):
        raise ConfigError(
            f"{recipe_path}: nodes lists {len(recipe.nodes)}, and this is node number {number}; "
            f'start the simulation with --federation-config "num-supernodes={len(recipe.nodes)}"'
        )
    node = recipe.nodes[number]
    # Simulated nodes share the coordinator's disk, so its tokenizer folder is theirs too. They also share its cores.
    tokenizer, threads = node.tokenizer or recipe.data.tokenizer, node.threads or simulated_threads(recipe)
    # A simulation repeats to the bit, so its batches follow from the recipe alone.
    return node.model_copy(update={"tokenizer": tokenizer, "threads": threads, "salt": node.salt or ""})


def simulated_threads(recipe: Recipe) -> int:
    """Returns the threads of each process of a node that does not say so itself, while all nodes train at once."""
    return resolve_threads(recipe.training.threads, recipe.federation_size)


def state_base(settings: NodeSettings) -> Path:
    """Returns the folder below which this node keeps a folder for every run.

    Raises:
        MachineError: no folder is given, and the account has no home.
    """
    try:
        return Path(settings.state_dir or platformdirs.user_state_dir("trfmoe"))
    except RuntimeError:
        raise no_home("state_dir in the node's settings") from None


def state_folder(settings: NodeSettings, run_id: str) -> Path:
    """Returns where this node keeps what a run needs again: optimizer moments and its place in the data.

    Raises:
        PathError: the run's id, which a coordinator chose, leads anywhere else.
    """
    return inside(state_base(settings), run_id, settings.name)


def cache_folder(settings: NodeSettings) -> Path:
    """Returns where this node keeps token shards, keyed by content."""
    return Path(settings.cache_dir) if settings.cache_dir else cache_home()


def _from_pairs(pairs: dict[str, Any], home: Path) -> NodeSettings:
    raw = {key.replace("-", "_"): value for key, value in pairs.items()}

    def absolute(path: str) -> str:
        return os.path.abspath(home / expand(path))  # noqa: PTH100  (Path.resolve raises on a loop of links)

    if isinstance(raw.get("data"), str):
        raw["data"] = [absolute(part) for part in raw["data"].split(os.pathsep)]
    if isinstance(raw.get("tokenizer"), str):
        raw["tokenizer"] = tokenizer_place(raw["tokenizer"], absolute)
    drill = {key.removeprefix("drill_"): raw.pop(key) for key in list(raw) if key.startswith("drill_")}
    if drill:
        raw["drill"] = drill
    return validate(NodeSettings, raw, "--node-config")
