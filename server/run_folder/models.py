"""The models of a run folder: the initial model, and those of its rounds."""

from collections.abc import Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from server.run_folder.checkpoints import checkpoint_rounds
from server.run_folder.folder import RunFolder
from server.run_folder.recorder import best_round, committed_checkpoint, committed_rounds
from trfmoe_core.data.tokenizers import Tokenizer, check_vocabulary, load_tokenizer
from trfmoe_core.errors import RunFolderError
from trfmoe_core.model.frozen import FrozenPart
from trfmoe_core.model.stock.kept import KeptSettings
from trfmoe_core.model.transformer import MoETransformer, build_model

FROZEN_REMEDY = (
    "the weights that are never trained are not those that this run began with; put the recipe's model, seed and "
    "training.freeze and the file imported.safetensors back, or start a new run"
)


def run_tokenizer(folder: RunFolder) -> Tokenizer:
    """Returns the run's copy of its tokenizer, or the recipe's tokenizer if the run has no copy yet."""
    own = folder.tokenizer_path
    return load_tokenizer(str(own) if own.exists() else folder.recipe.data.tokenizer)


def initial_model(folder: RunFolder, tokenizer: Tokenizer) -> MoETransformer:
    """Returns the model that a run begins with: imported weights, or else drawn from the recipe's seed.

    Raises:
        ConfigError: the model has fewer rows than the tokenizer has tokens.
        RunFolderError: the imported weights are no weights of this model.
    """
    recipe = folder.recipe
    check_vocabulary(recipe.model, tokenizer)
    freeze = recipe.training.freeze
    model = build_model(recipe.model, tokenizer.padded_vocab_size, recipe.seed, tokenizer.bos_id, freeze)
    if folder.imported_path.exists():
        try:
            _set_weights(model.named_weights(), load_file(folder.imported_path))
        except (OSError, SafetensorError, KeyError, RuntimeError) as error:
            raise RunFolderError(f"{folder.imported_path}: not this model's weights ({error}); import again") from error
    return model


def imported_settings(folder: RunFolder) -> KeptSettings | None:
    """Returns what the imported folder said besides the model's shape; None if the run's model was made here.

    Raises:
        RunFolderError: the file is damaged.
    """
    path = folder.imported_settings_path
    try:
        return KeptSettings.from_json(path.read_text(encoding="utf-8")) if path.exists() else None
    except (OSError, ValueError, TypeError) as error:
        raise RunFolderError(f"{path}: cannot be read ({error}); import again") from error


def end_ids(folder: RunFolder, tokenizer: Tokenizer) -> set[int]:
    """Returns the tokens that end a text of the run's model: the bos of the next piece, and those of an import."""
    kept = imported_settings(folder)
    return {tokenizer.bos_id, *(kept.end_ids if kept else [])}


def choose_round(folder: RunFolder, number: int | None = None, last: bool = False) -> int:
    """Returns the chosen round. Round 0 is an imported model before its first round.

    Args:
        folder: The run.
        number: This one.
        last: The newest instead of the best.

    Raises:
        RunFolderError: there is no such model.
    """
    kept = sorted(set(checkpoint_rounds(folder.checkpoints_path)) & set(committed_rounds(folder)))
    if folder.imported_path.exists():
        kept = [0, *kept]
    if not kept:
        raise RunFolderError(f"{folder.path}: no round is committed yet; let the run go on until its first checkpoint")
    if number is not None:
        if number not in kept:
            raise RunFolderError(f"--round {number}: {folder.path} keeps the models of rounds {kept}; choose one")
        return number
    best = None if last else best_round(folder)
    return kept[-1] if best is None else best


def unit_of(folder: RunFolder) -> str:
    """Returns what the numbers of a run's models count: rounds, or the steps of a run on one machine."""
    return "step" if folder.facts().started.get("mode") == "local" else "round"


def better_start(folder: RunFolder, number: int) -> str:
    """Returns a sentence if the weights that a run begins with are better than the chosen round's; else an empty text.

    The chosen round stays the best trained one: who exports a run wants what it learned, and can ask for the start.
    """
    facts = folder.facts()
    values = [facts.evaluated.get(one, {}).get("bits_per_byte") for one in (0, number)]
    start, chosen = values
    if number == 0 or not folder.imported_path.exists() or start is None or chosen is None or chosen <= start:
        return ""
    return (
        f"{folder.path.name}: the model after {unit_of(folder)} {number} takes {chosen:.4f} bits per byte of held-out "
        f"text, and the weights that the run began with take {start:.4f}: training made it worse; --round 0 takes "
        "those weights"
    )


def load_model(folder: RunFolder, number: int) -> tuple[MoETransformer, Tokenizer]:
    """Returns the model after a round and the run's tokenizer.

    A checkpoint holds what is trained; what is not comes from the beginning of the run.

    Raises:
        RunFolderError: the checkpoint is missing, broken, or not what was committed; or what is never trained is not
            what the run began with.
    """
    tokenizer, recipe = run_tokenizer(folder), folder.recipe
    if number == 0:
        return initial_model(folder, tokenizer), tokenizer
    freeze = recipe.training.freeze
    model = build_model(recipe.model, tokenizer.padded_vocab_size, recipe.seed, tokenizer.bos_id, freeze)
    if model.frozen_weights():
        model = initial_model(folder, tokenizer)
        check_frozen(folder, model)
    _set_weights(dict(model.named_parameters()), committed_checkpoint(folder, number).weights)
    return model, tokenizer


def frozen_part(model: MoETransformer) -> FrozenPart | None:
    """Returns the weights of a model that are never trained; None if all are trained. They share the model's memory."""
    weights = model.frozen_weights()
    return FrozenPart(weights) if weights else None


def check_frozen(folder: RunFolder, model: MoETransformer) -> None:
    """Checks that what is never trained is what the run began with.

    Raises:
        RunFolderError: It is not.
    """
    first, part = folder.facts().first, frozen_part(model)
    digest = part.digest if part else None
    if first.get("frozen_digest", digest) != digest:
        raise RunFolderError(f"{folder.path}: {FROZEN_REMEDY}")


@torch.no_grad()
def _set_weights(parameters: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    for name, parameter in parameters.items():
        parameter.copy_(weights[name])
