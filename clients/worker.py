"""What a node does when it is asked: describe itself, and evaluate and train the model that arrives."""

import platform
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from clients.bases import KEEP, Bases, receive
from clients.laps import Laps
from clients.limits import OverLimitsError, check_memory, within_limits
from clients.node import cache_folder, state_folder
from strategies.messages import Description, Evaluation, Training, TrainReply, TrainRequest
from trfmoe_core.blocks import BlockLayout, Blocks
from trfmoe_core.config import NodeSettings, Recipe
from trfmoe_core.config.load import validate
from trfmoe_core.config.places import is_hub_name
from trfmoe_core.data.batches import BatchStream, Cursor, evaluation_windows
from trfmoe_core.data.corpus import Corpus, prepare_corpus
from trfmoe_core.data.tokenizer import Tokenizer, load_tokenizer
from trfmoe_core.errors import DataError, WireError
from trfmoe_core.fingerprint import code_fingerprint
from trfmoe_core.model.local import local_experts
from trfmoe_core.model.transformer import MoETransformer, parameter_shapes
from trfmoe_core.seeds import seed_for
from trfmoe_core.training.device import prepare_process, resolve_device, resolve_precision
from trfmoe_core.training.evaluate import evaluate
from trfmoe_core.training.local_state import load_state, save_state
from trfmoe_core.training.trainer import Trainer
from trfmoe_core.wire import Parcel, encode

KEEP_STATES = 2
"""Rounds whose state stays on the disk: a coordinator that died in a round asks for it again."""

_LOST = "lost."


class Worker:
    """A node at work on one request.

    Args:
        settings: The node's own.
        recipe: What the coordinator sent; it names no path of this node.
    """

    def __init__(self, settings: NodeSettings, recipe: dict[str, object]) -> None:
        self.laps = Laps()
        self.settings = settings
        self.recipe = validate(Recipe, recipe, "the coordinator's recipe")
        prepare_process(self.recipe.training, settings.threads)
        self.device = resolve_device(settings.device or self.recipe.training.device)
        self.precision = resolve_precision(self.recipe.training.precision, self.device)

    def tokenizer(self) -> Tokenizer:
        """Returns the run's tokenizer, from where the node says that it lies: the coordinator names no path here.

        Raises:
            DataError: the node has to say where it lies and does not, or it cannot be used.
        """
        asked = self.recipe.data.tokenizer
        if self.settings.tokenizer is None and asked != "byte" and not is_hub_name(asked):
            raise DataError(
                f"the run's tokenizer is the coordinator's folder {Path(asked).name}; copy it to this node and say "
                "where it lies: tokenizer: FOLDER in the node's settings"
            )
        return load_tokenizer(self.settings.tokenizer or asked)

    def corpus(self, tokenizer: Tokenizer) -> Corpus:
        """Returns the node's text as token shards, from the cache when nothing changed."""
        return prepare_corpus(
            within_limits(self.settings, self.recipe).data, self.recipe.data, tokenizer, cache_folder(self.settings)
        )

    def describe(self, run_id: str) -> Description:
        """Returns who this node is, after its data are prepared. Unusable data are a refusal, not an error."""
        versions = {"python": platform.python_version(), "torch": torch.__version__}
        description = Description(
            name=self.settings.name,
            zone=self.settings.zone,
            code_fingerprint=code_fingerprint(),
            versions=versions,
            device=str(self.device),
        )
        try:
            tokenizer = self.tokenizer()
            check_memory(self.settings, self.recipe, tokenizer.padded_vocab_size)
            corpus = self.corpus(tokenizer)
        except (DataError, OverLimitsError) as error:
            return description.model_copy(update={"refusal": str(error)[:2000]})
        return description.model_copy(
            update={
                "tokenizer_fingerprint": tokenizer.fingerprint,
                "train_tokens": corpus.train.num_tokens,
                "held_out_tokens": corpus.held_out.num_tokens,
                "files": dict(sorted(Counter(report.status for report in corpus.files).items())),
                "notes": [note[:2000] for note in corpus.notes[:50]],
                "bigram_bits_per_byte": corpus.bigram_bits_per_byte,
                "bases": self._bases(run_id).digests()[-KEEP:],
            }
        )

    def work(self, request: TrainRequest, parcel: Parcel) -> tuple[TrainReply, Parcel | None]:
        """Evaluates the arriving model on held-out text, trains it for `request.steps`, and returns the updates.

        Raises:
            WireError: when what arrived is not what was announced.
        """
        tokenizer = self.tokenizer()
        corpus = self.corpus(tokenizer)
        self.laps.lap("data")
        recipe, vocab_size = self.recipe, tokenizer.padded_vocab_size
        local = local_experts(recipe.model, recipe.experts, request.held)
        model = MoETransformer(recipe.model, vocab_size, local, tokenizer.bos_id)
        layout, here = BlockLayout.of(parameter_shapes(recipe.model, vocab_size)), model.block_values()
        reply = TrainReply(
            run_id=request.run_id,
            round=request.round,
            epoch=request.epoch,
            base_digest=request.base_digest,
            name=self.settings.name,
        )
        bases = self._bases(request.run_id)
        base = receive(parcel, request, layout, BlockLayout.of(here).names, recipe.transport, bases)
        if base is None:
            return reply.model_copy(update={"lacks_base": True}), None
        if missing := [block for block in BlockLayout.of(here).names if block not in base]:
            raise WireError(f"{len(missing)} blocks of this node's model did not arrive, such as {missing[0]}")
        layout.scatter(base, here)
        model.to(self.device)
        self.laps.lap("decode")
        reply = reply.model_copy(update={"evaluation": self._evaluate(model, corpus)})
        self.laps.lap("evaluate")
        if request.steps == 0:
            return self._told(reply), None
        folder = state_folder(self.settings, request.run_id)
        earlier, cursor = _earlier_state(folder, request.round)
        trainer, stream = self._prepare(model, corpus, request, earlier, cursor)
        self.laps.lap("state")
        training = Training(**asdict(trainer.train(stream, request.steps)))
        self.laps.lap("train")
        updates = self._updates(model, layout, base, request.held)
        answer, lost = self._encode(updates, layout, earlier)
        self.laps.lap("encode")
        meta = {
            "round": request.round,
            "base_digest": request.base_digest,
            "epoch": stream.cursor.epoch,
            "window": stream.cursor.window,
        }
        save_state(state_path(folder, request.round), trainer.state() | lost, meta)
        _forget_states(folder, request.round)
        self.laps.lap("state")
        return self._told(reply.model_copy(update={"training": training, "index": answer.index})), answer

    def _told(self, reply: TrainReply) -> TrainReply:
        return reply.model_copy(update={"spent": self.laps.rounded()})

    def _bases(self, run_id: str) -> Bases:
        return Bases(state_folder(self.settings, run_id) / "bases")

    def _evaluate(self, model: MoETransformer, corpus: Corpus) -> Evaluation:
        windows = evaluation_windows(corpus.held_out, self.recipe.model.context, self.recipe.data.evaluation_tokens)
        metrics = evaluate(model, windows, self.recipe.training.batch_size, self.device, self.precision)
        return Evaluation(loss=metrics.loss, bits_per_byte=metrics.bits_per_byte, tokens=metrics.tokens)

    def _prepare(
        self, model: MoETransformer, corpus: Corpus, request: TrainRequest, earlier: dict[str, Tensor], cursor: Cursor
    ) -> tuple[Trainer, BatchStream]:
        trainer = Trainer(model, self.recipe.training, self.recipe.total_steps, self.device)
        if earlier:
            trainer.load_state(earlier)
        # A node that missed rounds keeps its place in the data, but the schedule is the federation's.
        trainer.step = (request.round - 1) * request.steps
        stream = BatchStream(
            corpus.train,
            self.recipe.model.context,
            self.recipe.training.batch_size,
            seed_for(self.recipe.seed, self.settings.name),
            cursor,
        )
        return trainer, stream

    def _encode(
        self, updates: Blocks, layout: BlockLayout, earlier: dict[str, Tensor]
    ) -> tuple[Parcel, dict[str, Tensor]]:
        """Returns the parcel of the updates, and what int8 made them lose: it goes with the next round's updates.

        What an earlier round lost lies in that round's state, so a round that is asked for again gives the same bytes.
        Updates are overwritten.
        """
        transport = self.recipe.transport
        lost: dict[str, Tensor] = {}
        if transport.updates != "int8":
            return encode(updates, layout, transport.updates, transport.parcel_mb << 20), lost
        for name, update in updates.items():
            if _LOST + name in earlier:
                update.add_(earlier[_LOST + name])

        def sent(name: str, values: Tensor) -> None:
            lost[_LOST + name] = updates[name].sub_(values).to(torch.bfloat16)

        return encode(updates, layout, transport.updates, transport.parcel_mb << 20, sent), lost

    def _updates(self, model: MoETransformer, layout: BlockLayout, base: Blocks, held: list[str]) -> Blocks:
        if unknown := [name for name in held if name not in base]:
            raise WireError(f"the coordinator asks for the block {unknown[0][:80]!r}, which the model does not have")
        trained = layout.gather(model.block_values(), held)
        return {name: trained[name].sub_(base[name]) for name in held}


def state_path(folder: Path, round_number: int) -> Path:
    """Returns where a node's state after a round lies in its state folder."""
    return folder / f"round-{round_number:06d}.safetensors"


def earlier_state_path(folder: Path, round_number: int) -> Path | None:
    """Returns the state that the training of a round goes on from: the last one before it, if any."""
    return max((path for number, path in _state_rounds(folder).items() if number < round_number), default=None)


def _state_rounds(folder: Path) -> dict[int, Path]:
    return {int(path.stem.removeprefix("round-")): path for path in sorted(folder.glob("round-*.safetensors"))}


def _earlier_state(folder: Path, round_number: int) -> tuple[dict[str, Tensor], Cursor]:
    path = earlier_state_path(folder, round_number)
    if path is None:
        return {}, Cursor(0, 0)
    tensors, meta = load_state(path)
    return tensors, Cursor(int(meta["epoch"]), int(meta["window"]))


def _forget_states(folder: Path, round_number: int) -> None:
    numbers = [number for number in _state_rounds(folder) if number <= round_number]
    for number in sorted(numbers)[:-KEEP_STATES]:
        state_path(folder, number).unlink(missing_ok=True)
