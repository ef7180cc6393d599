"""Flower's ServerApp: reads the recipe, opens or resumes the run folder, and lets the strategy run the rounds."""

import contextlib
from pathlib import Path
from uuid import uuid4

import flwr
import torch
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp

from server.report.page import write_report
from server.roll_call import call_roll
from server.run_folder.folder import RunFolder
from server.run_folder.models import frozen_part, initial_model
from server.run_folder.provenance import changes, check_resumed, provenance
from server.run_folder.recorder import RunRecorder, best_round, last_checkpoint
from server.run_folder.stop_request import forget_stop, stop_requested
from server.sinks.registry import lacking, sinks_of
from server.witness import Witness
from strategies.exchange.arrays import to_arrays
from strategies.exchange.in_flight import Clock
from strategies.round.pace import LONGEST_S
from strategies.tri_redundant import TriRedundant
from trfmoe_core.blocks import BlockLayout, Blocks, blocks_digest
from trfmoe_core.config import check_federated, load_recipe
from trfmoe_core.data.hub.offline import keep_offline
from trfmoe_core.data.tokenizers import Tokenizer, load_tokenizer
from trfmoe_core.errors import RunFolderError, TRFMoEError
from trfmoe_core.model.frozen import FrozenPart
from trfmoe_core.model.transformer import MoETransformer
from trfmoe_core.places import cache_home, find_recipe, home

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Runs one federation from the recipe that the run configuration names, or only asks who allows this code."""
    if roll_call := str(context.run_config.get("roll-call", "")):
        call_roll(grid, Path(roll_call))
        return
    recipe = load_recipe(find_recipe(str(context.run_config.get("recipe", "")))).resolved(home())
    run_dir = str(context.run_config.get("run-dir", ""))
    folder = RunFolder.open(Path(run_dir)) if run_dir else RunFolder.create(Path(recipe.run_root), recipe)
    run(grid, folder)


def run(grid: Grid, folder: RunFolder, clock: Clock | None = None) -> None:
    """Runs, or goes on with, the run of a folder, and leaves outcome and report in it.

    Raises:
        TRFMoEError: what ended the run; it is recorded as `run_finished` too.
    """
    torch.set_num_threads(1)
    recipe = folder.recipe
    check_federated(recipe)
    with folder.lock():
        keep_offline(recipe.data)
        tokenizer = load_tokenizer(recipe.data.tokenizer)
        model = initial_model(folder, tokenizer)
        frozen, layout, blocks = frozen_part(model), *initial_blocks(model)
        del model
        recorder = RunRecorder(folder, layout, sinks_of(recipe.log, folder.path))
        arrays = [to_arrays(blocks)]
        del blocks
        try:
            _run(grid, folder, recorder, layout, tokenizer, arrays, frozen, clock)
        except (ConnectionError, TimeoutError):
            raise  # the SuperLink is lost, which is no end of the run
        except (TRFMoEError, OSError) as error:
            ended = error if isinstance(error, TRFMoEError) else _disk_error(error, folder)
            with contextlib.suppress(RunFolderError):  # on a full disk; what ended the run is what has to be said
                recorder.record("run_finished", outcome="failed", reason=str(ended), rounds=None, digest=None)
            raise ended from error
        finally:
            with contextlib.suppress(OSError, RunFolderError):  # as above
                write_report(folder.path)


def _run(
    grid: Grid,
    folder: RunFolder,
    recorder: RunRecorder,
    layout: BlockLayout,
    tokenizer: Tokenizer,
    arrays: list[ArrayRecord],
    frozen: FrozenPart | None,
    clock: Clock | None,
) -> None:
    """Runs the rounds. Takes the untrained model out of `arrays`, so that it is in memory once."""
    recipe = folder.recipe
    salt = folder.witness_salt() if recipe.witness else ""
    facts = folder.facts()
    first, last = facts.first, facts.started
    origin = provenance(folder, tokenizer, frozen, salt, flwr=flwr.__version__)
    check_resumed(folder, first, origin)
    checkpoint = last_checkpoint(folder)
    if checkpoint is not None:
        arrays[0] = to_arrays(layout.gather(checkpoint.weights))
        checkpoint.weights.clear()
    run_id = first.get("run_id") or uuid4().hex
    forget_stop(folder)
    recorder.record(
        "run_started",
        run_id=run_id,
        name=recipe.name,
        mode="federated",
        vote=recipe.vote,
        vote_trunk=recipe.rule_of_trunk,
        min_share=recipe.fairness.min_share,
        num_rounds=recipe.rounds.num_rounds,
        resumed_from=checkpoint.round if checkpoint else None,
        parameters=sum(spec.numel for spec in layout.specs.values()) + (frozen.numel if frozen else 0),
        frozen_parameters=frozen.numel if frozen else 0,
        **origin,
    )
    for text in [*changes(last, origin), *lacking(recipe.log)]:
        recorder.record("warning", text=text)
    witness = Witness.prepare(recipe, tokenizer, cache_home(), salt, frozen.values if frozen else {})
    strategy = TriRedundant(
        recipe=recipe,
        layout=layout,
        run_id=run_id,
        tokenizer_fingerprint=tokenizer.fingerprint,
        recorder=recorder,
        spill_folder=folder.path / "spill",
        frozen=frozen,
        state=checkpoint.state if checkpoint else None,
        tensors=checkpoint.optimizer if checkpoint else None,
        witness=witness.loss if witness else None,
        clock=clock,
        stopping=lambda: stop_requested(folder),
    )
    rounds = recipe.rounds
    strategy.start(grid, arrays.pop(), num_rounds=rounds.num_rounds, timeout=rounds.reply_deadline_s or LONGEST_S)
    strategy.replica_files.clear()
    stopped = strategy.round < rounds.num_rounds
    recorder.record(
        "run_finished",
        outcome="stopped" if stopped else "completed",
        reason=f"the operator stopped it after round {strategy.round}" if stopped else None,
        rounds=strategy.round,
        digest=blocks_digest(strategy.blocks),
        best_round=best_round(folder),
    )


def _disk_error(error: OSError, folder: RunFolder) -> RunFolderError:
    return RunFolderError(
        f"{error.filename or folder.path}: {error.strerror or error}; mend that and go on with --resume, the last "
        "committed round is safe"
    )


def initial_blocks(model: MoETransformer) -> tuple[BlockLayout, Blocks]:
    """Returns the layout of what is trained of a run's model, and the blocks that it begins with."""
    parameters = dict(model.named_parameters())
    layout = BlockLayout.of(parameters)
    return layout, layout.gather(parameters)
