"""`--dry-run`: finds what would fail without reading any text, and shows what the recipe sets."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from clients.settings import cache_folder
from scripts.run.local.memory_check import needed_memory
from scripts.run.preflight import check_run_root_is_writable
from scripts.terminal.console import quantity, size
from scripts.terminal.output import Output
from trfmoe_core.config import NodeSettings, Recipe, recipe_hash
from trfmoe_core.config.sources import DataEntry
from trfmoe_core.config.yaml_text import dump_yaml
from trfmoe_core.data.hub.offline import keep_offline
from trfmoe_core.data.sources import OpenContext, check_sources, describe_sources
from trfmoe_core.data.tokenizers import Tokenizer, check_vocabulary, load_tokenizer
from trfmoe_core.errors import ConfigError, TRFMoEError
from trfmoe_core.model.transformer import parameter_shapes
from trfmoe_core.places import cache_home
from trfmoe_core.training.device import count_devices, resolve_device
from trfmoe_core.training.memory import training_memory
from trfmoe_core.training.schedule import schedule_remarks

Found = TypeVar("Found")


def show_dry_run(recipe: Recipe, output: Output, everything: bool = False, remarks: Sequence[str] = ()) -> None:
    """Writes what of the recipe differs from the defaults, what was found, and with `--json` the whole recipe.

    Args:
        recipe: The resolved recipe.
        output: Where it is shown.
        everything: Show the defaults too.
        remarks: What else the command has found.

    Raises:
        ConfigError: the recipe could not be run; lists all reasons that can be found without reading text.
    """
    keep_offline(recipe.data)
    problems: list[str] = []
    tokenizer = _tried(problems, "data.tokenizer", partial(load_tokenizer, recipe.data.tokenizer))
    for key, check in _checks(recipe, tokenizer):
        _tried(problems, key, check)
    rows = tokenizer.padded_vocab_size if tokenizer else 256
    shapes = _tried(problems, "", partial(parameter_shapes, recipe.model, rows))
    memory = None if problems else _tried(problems, "", partial(_memory, recipe, rows))
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))
    values = recipe.model_dump(mode="json")
    output.line(dump_yaml(values if everything else differing(recipe)).rstrip())
    for remark in remarks:
        output.line(f"# {remark}")
    for line in _found(recipe):
        output.line(f"# {line}")
    parameters = sum(shape.numel() for shape in (shapes or {}).values())
    if tokenizer:
        output.line(
            f"# tokenizer {tokenizer.name} with {tokenizer.vocab_size:,} tokens; model of {quantity(parameters)} "
            "parameters"
        )
    if memory:
        output.line(f"# {memory}")
    steps = recipe.training.budget(recipe.model.context, _count(recipe)) if recipe.training.epochs is None else None
    if steps is None and recipe.training.epochs is None:
        steps = recipe.total_steps
    for remark in schedule_remarks(recipe.training, steps) if steps else []:
        output.line(f"# warning: {remark}")
    if not everything:
        output.line("# everything else has its default; --all shows it")
    output.line(f"# recipe hash {recipe_hash(recipe)}")
    output.result({"outcome": "dry-run", "recipe": values, "recipe_hash": recipe_hash(recipe), "exit_code": 0})


def _memory(recipe: Recipe, vocab_size: int) -> str:
    """Returns what training takes in words; a run on this machine alone must fit here."""
    device = resolve_device(recipe.training.device)
    if recipe.data.sources:
        ranks = count_devices(device, recipe.training.devices)
        return needed_memory(recipe, vocab_size, device, ranks)
    needed = training_memory(recipe.model, recipe.training, vocab_size, device)
    return f"training takes about {size(needed.peak)} of memory on every node"


def _found(recipe: Recipe) -> Iterator[str]:
    """Yields what every source of text has."""
    if recipe.data.sources:
        local = NodeSettings(name="local", data=list(recipe.data.sources))
        yield from describe_sources(local.data, OpenContext(recipe.data, cache_folder(local)))
    for node in recipe.nodes:
        for line in describe_sources(node.data, OpenContext(recipe.data, cache_folder(node))):
            yield f"node {node.name}: {line}"


def differing(recipe: Recipe) -> dict[str, Any]:
    """Returns what of a recipe differs from the defaults, as plain values."""
    shown: dict[str, Any] = _changed(recipe.model_dump(mode="json"), Recipe().model_dump(mode="json"))
    if recipe.nodes:
        least = NodeSettings(name="node", data=["-"]).model_dump(mode="json") | {"name": None, "data": None}
        shown["nodes"] = [_changed(node.model_dump(mode="json"), least) for node in recipe.nodes]
    return shown


def _changed(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for key, value in values.items():
        usual = defaults.get(key)
        if isinstance(value, dict) and isinstance(usual, dict):
            if changed := _changed(value, usual):
                found[key] = changed
        elif value != usual:
            found[key] = value
    return found


def _checks(recipe: Recipe, tokenizer: Tokenizer | None) -> Iterator[tuple[str, Callable[[], object]]]:
    if tokenizer:
        yield "", partial(check_vocabulary, recipe.model, tokenizer)
    yield "", partial(resolve_device, recipe.training.device)
    yield "", partial(check_run_root_is_writable, Path(recipe.run_root))
    if recipe.data.sources:
        local = NodeSettings(name="local", data=list(recipe.data.sources))
        yield "data.sources", partial(_check_data, local.data, recipe, local)
    for node in recipe.nodes:
        if node.tokenizer:
            yield f"node {node.name}: tokenizer", partial(load_tokenizer, node.tokenizer)
        yield f"node {node.name}: data", partial(_check_data, node.data, recipe, node)
    if recipe.witness:
        yield "witness.data", partial(check_sources, recipe.witness.data, OpenContext(recipe.data, cache_home()))


def _check_data(entries: list[DataEntry], recipe: Recipe, node: NodeSettings) -> None:
    check_sources(entries, OpenContext(recipe.data, cache_folder(node)))


def _tried(problems: list[str], key: str, check: Callable[[], Found]) -> Found | None:
    """Returns what a check returns, or None after noting why it fails."""
    try:
        return check()
    except TRFMoEError as error:
        problems.append(f"{key}: {error}" if key else str(error))
        return None


def _count(recipe: Recipe) -> int:
    return recipe.training.devices if isinstance(recipe.training.devices, int) else 1
