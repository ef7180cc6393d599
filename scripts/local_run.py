"""Training on one machine without a federation: the same trainer, journal and checkpoints, all data in one place."""

import platform
from collections import Counter
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import torch

from server.checkpoint import Checkpoint
from server.events import read_events
from server.history import RunHistory
from server.models import initial_model
from server.recorder import RunRecorder, Sink, best_round, last_checkpoint
from server.report import write_report
from server.run_folder import RunFolder
from server.wandb_sink import WandbSink
from trfmoe_core.blocks import BlockLayout, blocks_digest
from trfmoe_core.config import Recipe, recipe_hash
from trfmoe_core.data.batches import BatchStream, Cursor, EvaluationSet, evaluation_windows
from trfmoe_core.data.corpus import Corpus
from trfmoe_core.data.tokenizer import Tokenizer
from trfmoe_core.errors import ConfigError, TRFMoEError
from trfmoe_core.fingerprint import code_fingerprint
from trfmoe_core.model.transformer import MoETransformer
from trfmoe_core.seeds import seed_for
from trfmoe_core.training.device import resolve_device, resolve_precision, set_threads
from trfmoe_core.training.evaluate import EvalMetrics, evaluate
from trfmoe_core.training.trainer import Trainer, TrainMetrics

NODE = "local"


@dataclass
class LocalRun:
    """One run on one machine. A round is `rounds.local_steps` steps, and ends with a checkpoint and an evaluation.

    The checkpoint holds weights, optimizer moments and the place in the data, so a run that was stopped at any
    instant and goes on gives the same bits as one that was not.
    """

    folder: RunFolder
    tokenizer: Tokenizer
    corpus: Corpus
    sink: Sink

    def __post_init__(self) -> None:
        recipe = self.recipe
        set_threads(recipe.training.threads)
        self.device = resolve_device(recipe.training.device)
        self.precision = resolve_precision(recipe.training.precision, self.device)
        self.model: MoETransformer = initial_model(self.folder, self.tokenizer)
        self.parameters = dict(self.model.named_parameters())
        self.layout = BlockLayout.of(self.parameters)
        self.trainer = Trainer(self.model, recipe.training, recipe.total_steps, self.device)
        self.windows: EvaluationSet = evaluation_windows(
            self.corpus.held_out, recipe.model.context, recipe.data.evaluation_tokens
        )
        self.best: dict[str, Any] | None = None

    @property
    def recipe(self) -> Recipe:
        """The run's recipe."""
        return self.folder.recipe

    def run(self) -> None:
        """Trains from the last committed round to the last round of the recipe.

        Raises:
            TRFMoEError: what ended the run; it is recorded as `run_finished` too.
        """
        with self.folder.lock():
            log = self.recipe.log
            shown: list[Sink] = [self.sink]
            if log.wandb != "off":
                shown.append(WandbSink(log.wandb, log.wandb_project, self.folder.path))
            recorder = RunRecorder(self.folder, self.layout, shown)
            try:
                self._run(recorder)
            except TRFMoEError as error:
                recorder.record("run_finished", outcome="failed", reason=str(error), rounds=None, digest=None)
                raise
            finally:
                write_report(self.folder.path)

    def _run(self, recorder: RunRecorder) -> None:
        if not self.folder.tokenizer_path.exists():
            self.tokenizer.save(self.folder.tokenizer_path)
        checkpoint = last_checkpoint(self.folder, self.layout)
        stream = self._restore(checkpoint)
        done = 0 if checkpoint is None else checkpoint.round
        measured = RunHistory(read_events(self.folder.events_path)).evaluated
        self._record_start(recorder, checkpoint)
        if done not in measured:
            self._record_evaluation(recorder, done, self._evaluate())
        for number in range(done + 1, self.recipe.rounds.num_rounds + 1):
            metrics = self.trainer.train(stream, self.recipe.rounds.local_steps)
            scores = self._evaluate()
            if self.best is None or scores.bits_per_byte < self.best["bits_per_byte"]:
                self.best = {"round": number, "bits_per_byte": scores.bits_per_byte}
            self._commit(recorder, number, metrics, stream.cursor)
            self._record_evaluation(recorder, number, scores)
        recorder.record(
            "run_finished",
            outcome="completed",
            reason=None,
            rounds=self.recipe.rounds.num_rounds,
            digest=blocks_digest(self.layout.gather(self.parameters)),
            best_round=best_round(self.folder),
        )

    def _restore(self, checkpoint: Checkpoint | None) -> BatchStream:
        cursor = Cursor(0, 0)
        if checkpoint is not None:
            state = checkpoint.state
            if state["corpus"] != self.corpus.key:
                raise ConfigError(
                    f"{self.folder.path}: its data have changed since it was started; resume it with the same files"
                )
            with torch.no_grad():
                for name, parameter in self.parameters.items():
                    parameter.copy_(checkpoint.weights[name])
            self.trainer.load_state(checkpoint.optimizer)
            self.best = state["best"]
            cursor = Cursor(state["cursor"]["epoch"], state["cursor"]["window"])
        recipe = self.recipe
        seed = seed_for(recipe.seed, NODE)
        return BatchStream(self.corpus.train, recipe.model.context, recipe.training.batch_size, seed, cursor)

    def _evaluate(self) -> EvalMetrics:
        return evaluate(self.model, self.windows, self.recipe.training.batch_size, self.device, self.precision)

    def _commit(self, recorder: RunRecorder, number: int, metrics: TrainMetrics, cursor: Cursor) -> None:
        blocks = self.layout.gather(self.parameters)
        recorder.record(
            "node_reply",
            round=number,
            node=NODE,
            status="accepted",
            reason=None,
            loss=metrics.loss,
            balance_loss=metrics.balance_loss,
            grad_norm=metrics.grad_norm,
            learning_rate=metrics.learning_rate,
            tokens=metrics.tokens,
            train_seconds=metrics.seconds,
            expert_share=metrics.expert_share,
            drill=False,
        )
        summary = {
            "train_loss": metrics.loss,
            "seconds": metrics.seconds,
            "train_share": 1.0,
            "tokens": metrics.tokens,
            "tokens_per_s": metrics.tokens / max(metrics.seconds, 1e-9),
        }
        state = {
            "round": number,
            "digest": blocks_digest(blocks),
            "best": self.best,
            "summary": summary,
            "corpus": self.corpus.key,
            "cursor": {"epoch": cursor.epoch, "window": cursor.window},
        }
        recorder.commit(number, blocks, self.trainer.state(), state)

    def _record_start(self, recorder: RunRecorder, checkpoint: Checkpoint | None) -> None:
        started = RunHistory(read_events(self.folder.events_path)).started
        recorder.record(
            "run_started",
            run_id=started.get("run_id") or uuid4().hex,
            name=self.recipe.name,
            mode="local",
            recipe_hash=recipe_hash(self.recipe),
            code_fingerprint=code_fingerprint(),
            num_rounds=self.recipe.rounds.num_rounds,
            resumed_from=checkpoint and checkpoint.round,
            versions={"python": platform.python_version(), "torch": torch.__version__},
            parameters=sum(parameter.numel() for parameter in self.parameters.values()),
        )
        recorder.record(
            "node_joined",
            node=NODE,
            zone=None,
            device=str(self.device),
            train_tokens=self.corpus.train.num_tokens,
            held_out_tokens=self.corpus.held_out.num_tokens,
            files=dict(sorted(Counter(report.status for report in self.corpus.files).items())),
            notes=self.corpus.notes,
            bigram_bits_per_byte=self.corpus.bigram_bits_per_byte,
        )

    def _record_evaluation(self, recorder: RunRecorder, number: int, scores: EvalMetrics) -> None:
        recorder.record(
            "evaluated",
            round=number,
            loss=scores.loss,
            bits_per_byte=scores.bits_per_byte,
            perplexity=scores.perplexity,
            nodes={NODE: {"loss": scores.loss, "bits_per_byte": scores.bits_per_byte}},
            best=self.best is not None and self.best["round"] == number,
        )
