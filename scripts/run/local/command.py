"""Starts or goes on with a run on one machine, and shows it."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from threading import Event, Thread

import torch

from scripts.run.local.memory_check import needed_memory
from scripts.run.local.resume import resumed_local_run
from scripts.run.local.run import NODE, LocalRun, planned_steps, prepare_data
from scripts.run.local.warm_start import WarmStart
from scripts.run.outcome import RunOutcome, judge, show_results
from scripts.run.preflight import check_run_root, show_files, warn_of_little_text
from scripts.run.resuming import change_settings, changes_length
from scripts.run.run_folders import Difference, new_run
from scripts.terminal.output import Output
from scripts.terminal.progress import DataProgress
from scripts.terminal.training import TrainingDisplay, TrainingLines
from server.run_folder.folder import RunFolder
from server.run_folder.history import RunHistory
from server.run_folder.journal import JournalReader, read_events
from trfmoe_core.config import Recipe
from trfmoe_core.config.sources import DataEntry
from trfmoe_core.data.hub.offline import keep_offline
from trfmoe_core.data.tokenizers import load_tokenizer
from trfmoe_core.errors import RunError
from trfmoe_core.training.device import count_devices, resolve_device
from trfmoe_core.training.launch import launch

RANK = "scripts.run.local.rank"
"""The module that each process runs where several devices train together."""


def run_local(
    recipe: Recipe,
    output: Output,
    *,
    resume: bool = False,
    run_dir: Path | None = None,
    pdfs: Sequence[DataEntry] = (),
    start: WarmStart | None = None,
) -> RunOutcome:
    """Trains or goes on training, shows it and returns the outcome.

    Args:
        recipe: Of a run on one machine.
        output: Where the run is shown.
        resume: Go on with the latest run of the recipe.
        run_dir: Go on with this one.
        pdfs: The text, if the command line named it.
        start: The weights that a new run begins with.

    Raises:
        TRFMoEError: what is wrong before training starts, or what ended it.
    """
    device = resolve_device(recipe.training.device)
    size = count_devices(device, recipe.training.devices)
    recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update={"devices": size})})
    folder, changed = None, list[Difference]()
    if resume or run_dir:
        folder, recipe, changed = resumed_local_run(recipe, run_dir, new_text=bool(pdfs))
    else:
        check_run_root(Path(recipe.run_root))
    history = RunHistory(read_events(folder.events_path) if folder else [])
    if folder and history.finished and history.finished["outcome"] == "completed" and not changes_length(changed):
        output.line(f"{folder.path}: this run is complete after {max(history.committed)} steps; nothing to do")
        output.line(f"make it longer with: {go_on(folder.path)} --set training.steps=N")
    else:
        folder = _train(folder, recipe, changed, pdfs, start, device, output)
    outcome = judge(RunHistory(read_events(folder.events_path)), folder.path)
    show_results(outcome, output)
    if outcome.completed:
        output.line(f'try it     trfmoe generate {shlex.quote(str(folder.path))} --prompt "The"')
    else:
        output.line(resume_hint(folder))
    return outcome


def go_on(run_dir: Path) -> str:
    """Returns the command that goes on with a run."""
    return f"trfmoe train --run-dir {shlex.quote(str(run_dir))}"


def resume_hint(folder: RunFolder) -> str:
    """Returns how to go on with a run that has not ended."""
    step = max(folder.facts().committed, default=0)
    return f"{f'go on after step {step}' if step else 'begin it again'} with: {go_on(folder.path)}"


def _train(
    folder: RunFolder | None,
    recipe: Recipe,
    changed: Sequence[Difference],
    pdfs: Sequence[DataEntry],
    start: WarmStart | None,
    device: torch.device,
    output: Output,
) -> RunFolder:
    """Prepares the text, makes the folder of a new run, trains in it, and returns it."""
    keep_offline(recipe.data)
    rows = load_tokenizer(recipe.data.tokenizer).padded_vocab_size
    output.line(needed_memory(recipe, rows, device, int(recipe.training.devices)))
    with DataProgress(output) as progress:
        tokenizer, corpus = prepare_data(recipe, progress)
    show_files(NODE, corpus, output)
    warn_of_little_text("the run", corpus, recipe, output)
    if folder is None:
        folder = new_run(recipe)
        if pdfs:
            folder.write_origin(pdfs=list(pdfs))
        if start:
            start.write(folder)
    elif changed:
        output.line(change_settings(folder, recipe, changed, planned_steps(recipe, corpus)))
    output.line(f"run folder {folder.path}")
    lines = TrainingLines(RunHistory(read_events(folder.events_path)))
    try:
        with TrainingDisplay(output, lines) as display:
            if int(recipe.training.devices) == 1:
                LocalRun(folder, tokenizer, corpus, sink=display.show, device=device, on_step=display.step).run()
            else:
                _train_in_ranks(folder, device, int(recipe.training.devices), display)
    except KeyboardInterrupt:
        step = max(folder.facts().committed, default=0)
        raise output.interrupted(folder.path, step, "step", go_on(folder.path)) from None
    return folder


def _train_in_ranks(folder: RunFolder, device: torch.device, size: int, display: TrainingDisplay) -> None:
    """Lets one process a device train, and shows what the first of them writes down."""
    reader, ended = JournalReader(folder.events_path), Event()
    for _ in reader.read():
        pass  # what the display knows

    def show() -> None:
        for event in reader.follow(ended.is_set):
            display.show(event)

    viewer = Thread(target=show, daemon=True)
    viewer.start()
    try:
        launch(RANK, [str(folder.path)], device, size, folder.path / "ranks")
    except RunError as error:
        raise RunError(f"{error}; {resume_hint(folder)}") from error
    finally:
        ended.set()
        viewer.join()
