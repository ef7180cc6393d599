"""A node's local training of one round, on one device or on several.

Several devices train in processes of their own (`clients.rank`), which find the weights in a folder and leave theirs
there.
"""

import json
import shutil
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import ValidationError
from torch import Tensor

from clients.kept.progress import progress_writer
from clients.kept.salt import salt_of
from clients.kept.states import LOST, earlier_state
from clients.limit_checks import hours_error, outside_hours
from clients.refusals import RefusedError
from strategies.exchange.messages import Evaluation, Training, TrainRequest
from strategies.exchange.refusals import Refusal
from trfmoe_core.blocks import BlockLayout
from trfmoe_core.config import NodeSettings, Recipe
from trfmoe_core.data.batches.corpus import Corpus
from trfmoe_core.data.batches.training import place_of, training_stream
from trfmoe_core.model.transformer import MoETransformer
from trfmoe_core.private import private_folder
from trfmoe_core.seeds import seed_for
from trfmoe_core.training.launch import launch
from trfmoe_core.training.local_state import load_state, save_state
from trfmoe_core.training.ranks import ALONE, Ranks
from trfmoe_core.training.shared_momentum import replace_momentum, with_momentum
from trfmoe_core.training.thread_choice import thread_choice_for
from trfmoe_core.training.trainer import Trainer

RANK_MODULE = "clients.rank"
Told = TypeVar("Told", Training, Evaluation)
_WEIGHT = "weight."


@dataclass(frozen=True)
class Trained:
    """The result of a round's training besides the model's weights.

    Attributes:
        training: What was measured.
        state: What the next round's training starts from.
        place: The place in the data.
        lost: What rounding made earlier updates lose, by block (error feedback).
    """

    training: Training
    state: dict[str, Tensor]
    place: dict[str, Any]
    lost: dict[str, Tensor]


def train_round(
    model: MoETransformer,
    corpus: Corpus,
    settings: NodeSettings,
    recipe: Recipe,
    request: TrainRequest,
    folder: Path,
    device: torch.device,
    momentum: Mapping[str, Tensor],
    ranks: Ranks = ALONE,
) -> Trained:
    """Trains the model in place, in this process alone or as one of several ranks.

    Args:
        folder: the node's state folder of this run.
        momentum: Block -> voted momentum, which takes the place of the node's own; those that the request brought.

    Raises:
        RefusedError: the owner's hours end before the last step, or a measurement is not finite.
    """
    earlier, place = earlier_state(folder, request.round, request.held)
    salt = salt_of(settings, folder)
    seed = seed_for(recipe.seed, settings.name, *([salt] if salt else []))
    choice = thread_choice_for(recipe.training, settings.threads, device, ranks.size)
    trainer = Trainer(model, recipe.training, recipe.total_steps, device, seed, ranks, choice)
    if momentum:
        layout = with_momentum(BlockLayout.of(model.block_values()), recipe.model)
        earlier = replace_momentum(earlier, momentum, layout)
    trainer.load_state(earlier)
    # A node that missed rounds keeps its place in the data, but the schedule is the federation's.
    trainer.step = recipe.rounds.steps_before(request.round)
    rows = recipe.training.batch_size * ranks.size
    with closing(training_stream(corpus, recipe, seed, place, rows)) as stream:
        last = trainer.step + request.steps
        note = progress_writer(folder, request.round, request.steps, trainer.step) if ranks.is_first else None
        metrics = trainer.train(stream, request.steps, partial(outside_hours, settings), note)
    if trainer.step < last:
        raise hours_error(settings)
    told = told_or_refused(Training, **asdict(metrics))
    return Trained(told, trainer.state(), place_of(corpus, stream), _lost(earlier))


def _lost(earlier: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(LOST): tensor for name, tensor in earlier.items() if name.startswith(LOST)}


def told_or_refused(kind: type[Told], **measured: Any) -> Told:
    """Returns measurements in the form in which they are told.

    Raises:
        RefusedError: one is not finite or otherwise impossible, as when the training diverged.
    """
    try:
        return kind(**measured)
    except ValidationError as error:
        wrong = ", ".join(f"{problem['loc'][0]} {problem['input']!r:.40}" for problem in error.errors()[:3])
        raise RefusedError(Refusal(code="not-finite"), f"cannot be told: {wrong}; did the training diverge?") from None


def train_round_in_ranks(
    model: MoETransformer,
    settings: NodeSettings,
    recipe: Recipe,
    request: TrainRequest,
    folder: Path,
    device: torch.device,
    size: int,
    momentum: Mapping[str, Tensor] | None = None,
) -> Trained:
    """Does what `train_round` does in `size` processes and leaves their weights in `model`.

    Args:
        model: The model that arrived; changed in place.
        settings: The node's own settings.
        recipe: The run's recipe.
        request: The coordinator's request.
        folder: Where the processes exchange files.
        device: Type of the devices, one a process.
        size: Number of processes.
        momentum: As for `train_round`.

    Returns:
        What the node measured.

    Raises:
        RunError: One of the processes failed. The others are stopped then.
        RefusedError: As `train_round` raises it.
    """
    model.cpu()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    # Below the state folder: what a kill leaves behind is replaced by the next round.
    place = folder / "ranks"
    shutil.rmtree(place, ignore_errors=True)
    private_folder(place)
    try:
        job = {
            # All ranks need one salt, and this process draws it.
            "settings": settings.model_copy(update={"salt": salt_of(settings, folder)}).model_dump(mode="json"),
            "recipe": recipe.model_dump(mode="json"),
            "request": request.model_copy(update={"index": "", "momentum": None}).model_dump(mode="json"),
        }
        (place / "job.json").write_text(json.dumps(job), encoding="utf-8")
        save_state(weights_path(place), model.state_dict(), {}, durable=False)
        save_state(momentum_path(place), momentum or {}, {}, durable=False)
        launch(RANK_MODULE, [str(place)], device, size, place / "logs")
        if _refused_path(place).exists():
            told = json.loads(_refused_path(place).read_text(encoding="utf-8"))
            raise RefusedError(Refusal.model_validate(told["refusal"]), told["text"])
        tensors, meta = load_state(trained_path(place))
    finally:
        shutil.rmtree(place, ignore_errors=True)
    weights = {name.removeprefix(_WEIGHT): value for name, value in tensors.items() if name.startswith(_WEIGHT)}
    model.load_state_dict(weights)
    state = {name: value for name, value in tensors.items() if not name.startswith(_WEIGHT)}
    lost = _lost(earlier_state(folder, request.round, request.held)[0])
    return Trained(Training.model_validate(meta["training"]), state, meta["place"], lost)


def leave_trained(place: Path, model: MoETransformer, trained: Trained) -> None:
    """Writes the result of the training. Only the first rank does, for all of them."""
    weights = {_WEIGHT + name: value for name, value in model.state_dict().items()}
    meta = {"training": trained.training.model_dump(mode="json"), "place": trained.place}
    save_state(trained_path(place), weights | trained.state, meta, durable=False)


def leave_refused(place: Path, error: RefusedError) -> None:
    """Writes why the training was refused. Only the first rank does: all refuse it for the same reason."""
    told = {"refusal": error.refusal.model_dump(mode="json"), "text": str(error)}
    _refused_path(place).write_text(json.dumps(told), encoding="utf-8")


def weights_path(place: Path) -> Path:
    """Returns where ranks find the weights that the round starts from."""
    return place / "weights.safetensors"


def momentum_path(place: Path) -> Path:
    """Returns where ranks find the voted momentum, which may be none."""
    return place / "momentum.safetensors"


def trained_path(place: Path) -> Path:
    """Returns where the first rank leaves what was trained."""
    return place / "trained.safetensors"


def _refused_path(place: Path) -> Path:
    return place / "refused.json"
