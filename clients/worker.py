"""A node's answers to requests: it describes itself, evaluates the model that arrives, and trains it."""

import logging
import platform
from collections import Counter
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from clients.kept.disk_limit import DiskLimit, state_bytes
from clients.kept.frozen import KeptFrozen
from clients.kept.journal_heads import note_head
from clients.kept.models import KEEP, KeptModels, receive
from clients.kept.own_rounds import note_answer, note_verdict
from clients.kept.states import LOST, keep_reply, keep_state, kept_reply, tighten_states
from clients.limit_checks import (
    check_devices,
    check_evaluation,
    check_hours,
    check_memory,
    check_round,
    check_size,
    check_text,
    within_limits,
    within_machine,
)
from clients.recipe_extent import check_extent
from clients.refusals import RefusedError, refused_as
from clients.settings import cache_folder, state_base, state_folder
from clients.stopwatch import Stopwatch
from clients.training import Trained, told_or_refused, train_round, train_round_in_ranks
from clients.voted_momentum import open_parcel
from strategies.exchange.messages import Description, Evaluation, TrainReply, TrainRequest
from strategies.exchange.refusals import Refusal
from trfmoe_core.blocks import BlockLayout, Blocks
from trfmoe_core.config import NodeSettings, Recipe
from trfmoe_core.config.load import validate
from trfmoe_core.counts import counted
from trfmoe_core.data.batches.corpus import Corpus
from trfmoe_core.data.hub.offline import keep_offline
from trfmoe_core.data.prepare.corpus_cache import prepare_corpus
from trfmoe_core.data.tokenizers import Tokenizer, load_tokenizer
from trfmoe_core.errors import WireError
from trfmoe_core.fingerprint import code_fingerprint
from trfmoe_core.model.frozen import read_frozen, set_frozen
from trfmoe_core.model.local_experts import local_experts
from trfmoe_core.model.transformer import MoETransformer, parameter_shapes
from trfmoe_core.places import is_hub_name
from trfmoe_core.quantize import LEVELS
from trfmoe_core.terminal import visible
from trfmoe_core.training.device import (
    count_devices,
    device_text,
    prepare_process,
    resolve_device,
    resolve_precision,
)
from trfmoe_core.training.evaluate import evaluate
from trfmoe_core.training.shared_momentum import PREFIX, momentum_of, with_momentum
from trfmoe_core.wire import Parcel, encode

log = logging.getLogger("trfmoe.node")


class Worker:
    """A node at work on one request.

    Args:
        settings: The node's own.
        recipe: What the coordinator sent; it names no path of this node.

    Raises:
        RefusedError: the recipe cannot be read, or this machine lacks the device.
    """

    def __init__(self, settings: NodeSettings, recipe: dict[str, object]) -> None:
        self.stopwatch = Stopwatch()
        self.settings = settings
        check_extent(recipe)
        with refused_as("recipe"):
            self.recipe = validate(Recipe, recipe, "the coordinator's recipe")
        self.recipe = within_machine(self.recipe)
        if not settings.limits.network:
            data = self.recipe.data.model_copy(update={"offline": True})
            self.recipe = self.recipe.model_copy(update={"data": data})
        keep_offline(self.recipe.data)
        with refused_as("device"):
            self.device = resolve_device(settings.device or self.recipe.training.device)
            self.devices = count_devices(self.device, settings.devices or self.recipe.training.devices)
        check_devices(settings, self.device, self.devices)
        prepare_process(self.recipe.training, settings.threads, self.devices)
        self.precision = resolve_precision(self.recipe.training.precision, self.device, self.recipe.model.width)

    def grant(self, steps: int, held: list[str] | None = None) -> None:
        """Makes sure that the owner grants the run, and a round of it, before any work is done for it.

        Args:
            steps: Optimizer steps of a round; 0 for an evaluation.
            held: The blocks that the coordinator has given to this node, if it has.

        Raises:
            OverLimitsError: the owner does not.
        """
        within_limits(self.settings, self.recipe)
        check_size(self.settings, self.recipe, steps, self.devices)
        if held is not None:
            check_round(self.settings, held)

    def room(self, run_id: str, tokenizer: Tokenizer, held: list[str] | None = None) -> DiskLimit:
        """Returns the room for the run's state and text, after making sure that memory and disk are granted.

        Args:
            run_id: The run.
            tokenizer: The run's.
            held: The blocks that the coordinator has given to this node, if it has.

        Raises:
            RefusedError: they are not, or the disk is full.
        """
        vocab_size = tokenizer.padded_vocab_size
        check_memory(self.settings, self.recipe, vocab_size, held)
        state_folder(self.settings, run_id)  # the run's id is a name that may be one
        tighten_states(state_base(self.settings), self.settings.name)
        room = DiskLimit(self.settings, run_id, state_bytes(self.recipe, vocab_size, self.devices, held))
        room.make()
        return room

    def tokenizer(self) -> Tokenizer:
        """Returns the run's tokenizer, from where the node says that it lies: the coordinator names no path here.

        Raises:
            RefusedError: the node has to say where it lies and does not, or it cannot be used.
        """
        asked = self.recipe.data.tokenizer
        if self.settings.tokenizer is None and asked != "byte" and not is_hub_name(asked):
            raise RefusedError(
                Refusal(code="tokenizer-missing"),
                f"the run's tokenizer is the coordinator's folder {Path(asked).name}; copy it to this node and say "
                "where it lies: tokenizer: FOLDER in the node's settings",
            )
        own = self.settings.tokenizer
        away = not self.settings.limits.network and is_hub_name(own or asked) and (own or asked) != "byte"
        with refused_as("limits-network" if away else "tokenizer"):
            return load_tokenizer(own or asked)

    def corpus(self, tokenizer: Tokenizer, room: DiskLimit | None = None) -> Corpus:
        """Returns the node's text as token shards, from the cache when nothing changed.

        Raises:
            RefusedError: the text cannot be used, takes more room than the owner grants, is shorter than a round may
                be, or the owner's hours end.
        """
        entries = within_limits(self.settings, self.recipe).data
        away = not self.settings.limits.network and any(hasattr(entry, "hub_set") for entry in entries)

        def watch(what: str, done: int, total: int) -> None:
            check_hours(self.settings)
            if room:
                room.watch()

        with refused_as("limits-network") if away else refused_as("data", count=len(entries)):
            corpus = prepare_corpus(entries, self.recipe.data, tokenizer, cache_folder(self.settings), watch)
        if room:
            room.check()
        check_text(self.settings, corpus.train_tokens, corpus.train_tokens + corpus.held_out_tokens)
        return corpus

    def describe(self, run_id: str) -> Description:
        """Returns who this node is, after its data are prepared.

        Raises:
            RefusedError: the owner does not grant the run, or the node lacks what it takes.
        """
        self.grant(self.recipe.rounds.fewest_steps)
        tokenizer = self.tokenizer()
        corpus = self.corpus(tokenizer, self.room(run_id, tokenizer))
        for note in corpus.notes:
            log.warning("data: %s", visible(note, layout=""))
        return Description(
            name=self.settings.name,
            zone=self.settings.zone,
            code_fingerprint=code_fingerprint(),
            versions={"python": platform.python_version(), "torch": torch.__version__},
            device=device_text(self.device, self.devices, self.precision),
            tokenizer_fingerprint=tokenizer.fingerprint,
            train_tokens=corpus.train_tokens,
            held_out_tokens=corpus.held_out_tokens,
            files=dict(sorted(Counter(report.status for report in corpus.files).items())),
            duplicates=corpus.duplicates,
            sources=len(corpus.sources),
            num_notes=len(corpus.notes),
            bigram_bits_per_byte=corpus.bigram_bits_per_byte,
            bases=self._bases(run_id).digests()[-KEEP:],
            frozen=self._kept_frozen(run_id).digests()[-1:],
        )

    def work(
        self, request: TrainRequest, parcel: Parcel, frozen: Parcel | None = None
    ) -> tuple[TrainReply, Parcel | None]:
        """Evaluates the arriving model on held-out text, trains it for `request.steps`, and returns the updates.

        Asked the very same again, it answers what it answered.

        Args:
            request: What is asked.
            parcel: The trained blocks of the model.
            frozen: The weights that are never trained, if they come along.

        Raises:
            WireError: when what arrived is not what was announced.
            RefusedError: the owner does not grant it, or the node lacks what it takes.
        """
        self.grant(request.steps, request.held if request.steps else None)
        recipe, folder = self.recipe, state_folder(self.settings, request.run_id)
        note_head(folder, request)
        note_verdict(folder, request)
        if request.steps and (kept := kept_reply(folder, request, recipe)):
            self.stopwatch.lap("state")
            note_answer(folder, recipe.name, request, *kept)
            return self._with_seconds(kept[0]), kept[1]
        tokenizer = self.tokenizer()
        corpus = self.corpus(tokenizer, self.room(request.run_id, tokenizer, request.held))
        self.stopwatch.lap("data")
        model, vocab_size = self.model(tokenizer, request), tokenizer.padded_vocab_size
        shapes = parameter_shapes(recipe.model, vocab_size, freeze=recipe.training.freeze)
        layout, here = BlockLayout.of(shapes), model.block_values()
        travelling = with_momentum(layout, recipe.model) if recipe.rounds.momentum_every else layout
        parcel, momentum = open_parcel(parcel, request, travelling, recipe.transport)
        reply = TrainReply(
            run_id=request.run_id,
            round=request.round,
            epoch=request.epoch,
            base_digest=request.base_digest,
            name=self.settings.name,
        )
        if not self._set_frozen(model, request, frozen):
            return reply.model_copy(update={"lacks_frozen": True}), None
        bases = self._bases(request.run_id)
        base = receive(parcel, request, layout, BlockLayout.of(here).names, recipe.transport, bases)
        if base is None:
            return reply.model_copy(update={"lacks_base": True}), None
        if missing := [block for block in BlockLayout.of(here).names if block not in base]:
            raise WireError(
                f"{counted(len(missing), 'block')} of this node's model did not arrive, such as {missing[0]}"
            )
        layout.scatter(base, here)
        model.to(self.device)
        self.stopwatch.lap("decode")
        reply = reply.model_copy(update={"evaluation": self._evaluate(model, corpus)})
        self.stopwatch.lap("evaluate")
        if request.steps == 0:  # The last request of a run. One that goes on later sends the whole model once.
            bases.clear()
            note_answer(folder, recipe.name, request, reply, None)
            return self._with_seconds(reply), None
        trained = self._train(model, corpus, request, folder, momentum)
        self.stopwatch.lap("train")
        updates = self._updates(model, layout, base, request.held)
        own = momentum_of(trained.state, travelling, request.held) if request.wants_momentum else {}
        answer, lost = self._encode(updates | own, travelling, trained.lost)
        self.stopwatch.lap("encode")
        keep_state(folder, request, trained.state | lost, trained.place)
        reply = reply.model_copy(update={"training": trained.training, "index": answer.index})
        keep_reply(folder, request, recipe, reply, answer)
        note_answer(folder, recipe.name, request, reply, answer)
        self.stopwatch.lap("state")
        return self._with_seconds(reply), answer

    def model(self, tokenizer: Tokenizer, request: TrainRequest) -> MoETransformer:
        """Returns the model that this node trains, with weights that are not set yet."""
        local = local_experts(self.recipe.model, self.recipe.experts, request.held)
        vocab_size, freeze = tokenizer.padded_vocab_size, self.recipe.training.freeze
        return MoETransformer(self.recipe.model, vocab_size, local, tokenizer.bos_id, freeze)

    def _set_frozen(self, model: MoETransformer, request: TrainRequest, arrived: Parcel | None) -> bool:
        """Gives the model its frozen part: what came along, or else what lies on this node's disk.

        Returns:
            False if the part did not come along and is not here.

        Raises:
            WireError: something else arrived than was announced.
        """
        weights = model.frozen_weights()
        if request.frozen is None:
            if weights:
                raise WireError("the recipe freezes weights, and the coordinator announced no digest of them")
            return True
        kept = self._kept_frozen(request.run_id)
        if arrived is None:
            values = kept.load(request.frozen)
        else:
            values = read_frozen(arrived, weights, request.frozen)
            kept.keep(request.frozen, values)
        if values is not None:
            set_frozen(values, weights)
        return values is not None

    def _train(
        self, model: MoETransformer, corpus: Corpus, request: TrainRequest, folder: Path, momentum: Blocks
    ) -> Trained:
        settings, recipe, device = self.settings, self.recipe, self.device
        if self.devices > 1:
            return train_round_in_ranks(model, settings, recipe, request, folder, device, self.devices, momentum)
        return train_round(model, corpus, settings, recipe, request, folder, device, momentum)

    def _with_seconds(self, reply: TrainReply) -> TrainReply:
        return reply.model_copy(update={"spent": self.stopwatch.rounded()})

    def _bases(self, run_id: str) -> KeptModels:
        return KeptModels(state_folder(self.settings, run_id) / "bases")

    def _kept_frozen(self, run_id: str) -> KeptFrozen:
        return KeptFrozen(state_folder(self.settings, run_id) / "frozen")

    def _evaluate(self, model: MoETransformer, corpus: Corpus) -> Evaluation:
        windows = corpus.evaluation(self.recipe.model.context, self.recipe.data.evaluation_tokens)
        check_evaluation(self.settings, int(windows.mask.sum()), corpus.train_tokens + corpus.held_out_tokens)
        size, hours = self.recipe.training.batch_size, partial(check_hours, self.settings)
        metrics = evaluate(model, windows, size, self.device, self.precision, before_batch=hours)
        return told_or_refused(
            Evaluation, loss=metrics.loss, bits_per_byte=metrics.bits_per_byte, tokens=metrics.tokens
        )

    def _encode(
        self, updates: Blocks, layout: BlockLayout, earlier: dict[str, Tensor]
    ) -> tuple[Parcel, dict[str, Tensor]]:
        """Returns the parcel of the updates, and what rounding made them lose: it goes with the next round's updates.

        What an earlier round lost (`earlier`, by block) lies in that round's state, so a round that is asked for again
        gives the same bytes. Momentum is not added to a sum, so what it loses is lost. Updates are overwritten.
        """
        transport = self.recipe.transport
        lost: dict[str, Tensor] = {}
        if transport.updates not in LEVELS:
            return encode(updates, layout, transport.updates, transport.parcel_mb << 20), lost
        for name, update in updates.items():
            if name in earlier:
                update.add_(earlier[name])

        def sent(name: str, values: Tensor) -> None:
            if not name.startswith(PREFIX):
                lost[LOST + name] = updates[name].sub_(values).to(torch.bfloat16)

        return encode(updates, layout, transport.updates, transport.parcel_mb << 20, sent), lost

    def _updates(self, model: MoETransformer, layout: BlockLayout, base: Blocks, held: list[str]) -> Blocks:
        if unknown := [name for name in held if name not in base]:
            raise WireError(f"the coordinator asks for the block {unknown[0][:80]!r}, which the model does not have")
        trained = layout.gather(model.block_values(), held)
        return {name: trained[name].sub_(base[name]) for name in held}
