"""Training on one machine without a federation: the same trainer, journal and checkpoints, all data in one place."""

import contextlib
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import torch

from clients.settings import cache_folder
from server.report.page import write_report
from server.run_folder.checkpoints import Checkpoint
from server.run_folder.folder import RunFolder
from server.run_folder.models import frozen_part, initial_model
from server.run_folder.provenance import changes, check_resumed, provenance
from server.run_folder.recorder import RunRecorder, best_round, last_checkpoint
from server.sinks.registry import Sink, lacking, sinks_of
from trfmoe_core.blocks import BlockLayout, blocks_digest
from trfmoe_core.config import NodeSettings, Recipe
from trfmoe_core.data.batches.corpus import Corpus
from trfmoe_core.data.batches.held_out import EvaluationSet
from trfmoe_core.data.batches.training import place_of, training_stream
from trfmoe_core.data.hub.offline import keep_offline
from trfmoe_core.data.prepare.build import Progress
from trfmoe_core.data.prepare.corpus_cache import prepare_corpus
from trfmoe_core.data.tokenizers import Tokenizer, check_vocabulary, load_tokenizer
from trfmoe_core.errors import ConfigError, RunFolderError, TRFMoEError
from trfmoe_core.model.transformer import MoETransformer
from trfmoe_core.seeds import seed_for
from trfmoe_core.training.device import device_text, prepare_process, resolve_precision
from trfmoe_core.training.evaluate import EvalMetrics, evaluate
from trfmoe_core.training.interrupt import SIGNALS, Interrupt
from trfmoe_core.training.ranks import ALONE, Ranks
from trfmoe_core.training.schedule import schedule_remarks
from trfmoe_core.training.thread_choice import thread_choice_for
from trfmoe_core.training.trainer import StepMetrics, Trainer, TrainMetrics

_TYPES = {str(dtype): dtype for dtype in (torch.float32, torch.bfloat16)}
NODE = "local"


def prepare_data(recipe: Recipe, progress: Progress = lambda what, done, total: None) -> tuple[Tokenizer, Corpus]:
    """Returns the run's tokenizer and all its text as one corpus, from the cache when nothing changed.

    Raises:
        ConfigError: the model has fewer rows than the tokenizer has tokens.
        DataError: tokenizer or text cannot be used.
    """
    keep_offline(recipe.data)
    tokenizer = load_tokenizer(recipe.data.tokenizer)
    check_vocabulary(recipe.model, tokenizer)
    data = recipe.data.sources
    cache = cache_folder(NodeSettings.model_validate({"name": NODE, "data": data}))
    return tokenizer, prepare_corpus(data, recipe.data, tokenizer, cache, progress)


def planned_steps(recipe: Recipe, corpus: Corpus) -> int:
    """Returns the optimizer steps of a run: its budget, else its rounds."""
    rows_per_epoch = None
    if recipe.training.epochs is not None:
        with closing(training_stream(corpus, recipe, 0)) as stream:
            rows_per_epoch = stream.rows_per_epoch
    budget = recipe.training.budget(recipe.model.context, int(recipe.training.devices), rows_per_epoch)
    return budget or recipe.total_steps


@dataclass
class Tally:
    """Sums over several calls of `Trainer.train`; `loss` is their mean a token."""

    loss: float = 0.0
    tokens: int = 0
    seconds: float = 0.0

    def add(self, metrics: TrainMetrics) -> None:
        """Takes in one call's results."""
        tokens = self.tokens + metrics.tokens
        self.loss += (metrics.loss - self.loss) * metrics.tokens / max(1, tokens)
        self.tokens, self.seconds = tokens, self.seconds + metrics.seconds


@dataclass
class LocalRun:
    """One run on one machine, or one rank's part of it. What the journal calls a round is a step here.

    A checkpoint holds weights, optimizer moments and the place in the data, so a run that was stopped at any instant
    and goes on gives the same bits as one that was not; on another number of devices, the same but for the order of
    sums.
    """

    folder: RunFolder
    tokenizer: Tokenizer
    corpus: Corpus
    sink: Sink
    device: torch.device
    ranks: Ranks = ALONE
    on_step: Callable[[StepMetrics], None] | None = None

    def __post_init__(self) -> None:
        recipe = self.folder.recipe
        prepare_process(recipe.training, processes=self.ranks.size)
        self.rows = recipe.training.batch_size * int(recipe.training.devices)
        """Sequences in one micro-batch of all devices."""
        if self.rows % self.ranks.size:
            raise ConfigError(
                f"training.devices: {self.ranks.size} devices cannot share batches of {self.rows} sequences evenly; "
                "give a divisor"
            )
        config = recipe.training.model_copy(update={"batch_size": self.rows // self.ranks.size})
        self.precision = resolve_precision(config.precision, self.device, recipe.model.width)
        self.model: MoETransformer = initial_model(self.folder, self.tokenizer)
        self.parameters = dict(self.model.named_parameters())
        self.layout = BlockLayout.of(self.parameters)
        seed = seed_for(recipe.seed, NODE)
        self.stream = training_stream(self.corpus, recipe, seed, batch_size=self.rows)
        self.total_steps = planned_steps(recipe, self.corpus)
        choice = thread_choice_for(config, None, self.device, self.ranks.size)
        self.trainer = Trainer(self.model, config, self.total_steps, self.device, seed, self.ranks, choice)
        self.windows: EvaluationSet = self.corpus.evaluation(recipe.model.context, recipe.data.evaluation_tokens)
        self.best: dict[str, Any] | None = None
        self._unsaved = Tally()

    @property
    def recipe(self) -> Recipe:
        """The run's recipe."""
        return self.folder.recipe

    def run(self) -> None:
        """Trains from the last committed step to the last step of the recipe.

        Raises:
            TRFMoEError: what ended the run; it is recorded as `run_finished` too.
            KeyboardInterrupt: on Ctrl-C, SIGTERM or SIGHUP, after the step was ended and saved; on rank 0 only.
        """
        if not self.ranks.is_first:
            self._run(None)
            return
        with self.folder.lock():
            shown = [self.sink, *sinks_of(self.recipe.log, self.folder.path)]
            recorder = RunRecorder(self.folder, self.layout, shown, self.recipe.local.keep_last)
            try:
                self._run(recorder)
            except ConfigError:
                raise  # a wrong request, which says nothing about the run
            except TRFMoEError as error:
                with contextlib.suppress(RunFolderError):  # on a full disk; what ended the run is what has to be said
                    recorder.record("run_finished", outcome="failed", reason=str(error), rounds=None, digest=None)
                raise
            finally:
                with contextlib.suppress(OSError, RunFolderError):  # as above
                    write_report(self.folder.path)

    def _run(self, recorder: RunRecorder | None) -> None:
        """Does this rank's part; `recorder` is rank 0's."""
        checkpoint = last_checkpoint(self.folder)
        self._restore(checkpoint)
        self.ranks.wait()
        measured = self.folder.facts().evaluated
        if recorder:
            self._record_start(recorder, checkpoint)
        # Several ranks are stopped by the launcher, which passes on one signal.
        with Interrupt(SIGNALS if self.ranks.size == 1 else (signal.SIGINT,)) as interrupted:
            if self._due(self._evaluation_after) and self.trainer.step not in measured:
                self._record_evaluation(recorder, self._evaluate())
            while self.trainer.step < self.total_steps:
                steps = self._next_pause() - self.trainer.step
                metrics = self.trainer.train(self.stream, steps, interrupted, self.on_step)
                stopped = bool(self.ranks.largest(interrupted()))
                self._pause(recorder, metrics, stopped)
                if stopped and self.trainer.step < self.total_steps:
                    if recorder:
                        raise KeyboardInterrupt
                    return
        if recorder:
            recorder.record(
                "run_finished",
                outcome="completed",
                reason=None,
                rounds=self.trainer.step,
                digest=blocks_digest(self.layout.gather(self.parameters)),
                best_round=best_round(self.folder),
            )

    def _evaluation_after(self, step: int) -> int:
        every = self.recipe.local.evaluate_every
        return _multiple_after(step, every) if every else self.recipe.rounds.end_after(step)

    def _save_after(self, step: int) -> int:
        every = self.recipe.local.save_every
        return _multiple_after(step, every) if every else self._evaluation_after(step)

    def _due(self, after: Callable[[int], int]) -> bool:
        """Returns whether something is due now; `after` gives the first step after another one at which it is."""
        return after(self.trainer.step - 1) == self.trainer.step or self.trainer.step == self.total_steps

    def _next_pause(self) -> int:
        step = self.trainer.step
        log = _multiple_after(step, self.recipe.local.log_every)
        return min(self.total_steps, log, self._evaluation_after(step), self._save_after(step))

    def _pause(self, recorder: RunRecorder | None, metrics: TrainMetrics, stopped: bool) -> None:
        """Evaluates and saves when it is due. The best model is saved too, and the last one before a stop."""
        scores = self._evaluate() if self._due(self._evaluation_after) else None
        better = scores is not None and (self.best is None or scores.bits_per_byte < self.best["bits_per_byte"])
        if scores is not None and better:
            self.best = {"round": self.trainer.step, "bits_per_byte": scores.bits_per_byte}
        if recorder:
            self._unsaved.add(metrics)
            self._record_training(recorder, metrics, measured=scores is not None)
            if better or stopped or self._due(self._save_after):
                self._commit(recorder)
                self._unsaved = Tally()
        if scores is not None:
            self._record_evaluation(recorder, scores)

    def _restore(self, checkpoint: Checkpoint | None) -> None:
        if checkpoint is None:
            return
        state = checkpoint.state
        if state["place"]["corpus"] != self.corpus.key:
            raise ConfigError(
                f"{self.folder.path}: its data have changed since it was started; resume it with the same files"
            )
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(checkpoint.weights[name])
        self.trainer.load_state(checkpoint.optimizer)
        self.precision = self.trainer.precision = self._going_on_with(state)
        self.best = state["best"]
        self.stream.close()
        seed = seed_for(self.recipe.seed, NODE)
        self.stream = training_stream(self.corpus, self.recipe, seed, state["place"], self.rows)

    def _going_on_with(self, state: Mapping[str, Any]) -> torch.dtype:
        """Returns the number type of the rest of the run: `auto` stays on a CPU what it was when the run was saved."""
        if self.recipe.training.precision != "auto" or self.device.type != "cpu":
            return self.precision
        # Releases that did not write the type down took float32 on every CPU.
        saved = state.get("computed", {"device": "cpu", "precision": str(torch.float32)})
        return _TYPES[saved["precision"]] if saved["device"] == "cpu" else self.precision

    def _evaluate(self) -> EvalMetrics:
        batch_size = self.trainer.config.batch_size
        return evaluate(self.model, self.windows, batch_size, self.device, self.precision, self.ranks)

    def _commit(self, recorder: RunRecorder) -> None:
        blocks = self.layout.gather(self.parameters)
        trained = self._unsaved
        summary = {
            "train_loss": trained.loss,
            "seconds": trained.seconds,
            "train_share": 1.0,
            "tokens": trained.tokens,
            "tokens_per_s": trained.tokens / max(trained.seconds, 1e-9),
        }
        state = {
            "round": self.trainer.step,
            "digest": blocks_digest(blocks),
            "best": self.best,
            "summary": summary,
            "place": place_of(self.corpus, self.stream),
            "computed": {"device": self.device.type, "precision": str(self.precision)},
        }
        recorder.commit(self.trainer.step, blocks, self.trainer.state(), state)

    def _record_training(self, recorder: RunRecorder, metrics: TrainMetrics, measured: bool) -> None:
        """Writes a point of the curves down; `measured` says whether an evaluation of the same step follows."""
        recorder.record(
            "node_reply",
            round=self.trainer.step,
            node=NODE,
            status="accepted",
            reason=None,
            loss=metrics.loss,
            balance_loss=metrics.balance_loss,
            grad_norm=metrics.grad_norm,
            learning_rate=metrics.learning_rate,
            tokens=metrics.tokens,
            train_seconds=metrics.seconds,
            data_wait_share=metrics.data_wait_share,
            peak_memory_bytes=metrics.peak_memory_bytes,
            expert_share=metrics.expert_share if measured else None,
            measured=measured,
            drill=False,
        )

    def _record_start(self, recorder: RunRecorder, checkpoint: Checkpoint | None) -> None:
        facts = self.folder.facts()
        first, last = facts.first, facts.started
        frozen = frozen_part(self.model)
        origin = provenance(self.folder, self.tokenizer, frozen)
        check_resumed(self.folder, first, origin)
        recorder.record(
            "run_started",
            run_id=first.get("run_id") or uuid4().hex,
            name=self.recipe.name,
            mode="local",
            num_rounds=self.total_steps,
            resumed_from=checkpoint and checkpoint.round,
            parameters=sum(weights.numel() for weights in self.model.named_weights().values()),
            frozen_parameters=frozen.numel if frozen else 0,
            origin=self.folder.origin(),
            **origin,
        )
        remarks = schedule_remarks(self.recipe.training, self.total_steps)
        for text in [*changes(last, origin), *remarks, *lacking(self.recipe.log)]:
            recorder.record("warning", text=text)
        recorder.record(
            "node_joined",
            node=NODE,
            zone=None,
            device=device_text(self.device, self.ranks.size, self.precision),
            train_tokens=self.corpus.train_tokens,
            held_out_tokens=self.corpus.held_out_tokens,
            files=dict(sorted(Counter(report.status for report in self.corpus.files).items())),
            notes=self.corpus.notes,
            bigram_bits_per_byte=self.corpus.bigram_bits_per_byte,
        )

    def _record_evaluation(self, recorder: RunRecorder | None, scores: EvalMetrics) -> None:
        if recorder is None:
            return
        recorder.record(
            "evaluated",
            round=self.trainer.step,
            loss=scores.loss,
            bits_per_byte=scores.bits_per_byte,
            perplexity=scores.perplexity,
            nodes={NODE: {"loss": scores.loss, "bits_per_byte": scores.bits_per_byte}},
            best=self.best is not None and self.best["round"] == self.trainer.step,
        )


def _multiple_after(step: int, every: int) -> int:
    return (step // every + 1) * every
