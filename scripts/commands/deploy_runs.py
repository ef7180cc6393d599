"""`trfmoe deploy run | status | attach | stop | logs`: the runs of a kit, from the coordinator's machine."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scripts.terminal.options import JsonOption, ResumeOption, RunDirOption, SetOption

if TYPE_CHECKING:
    from scripts.deploy.operation import Operation
    from scripts.deploy.submission import Submission
    from scripts.processes.control import RunState
    from scripts.run.outcome import RunOutcome
    from scripts.terminal.output import Output
    from server.run_folder.folder import RunFolder

LOG_PAUSE_S = 2.0
LOOK_EVERY_S = 2.0
SERVER_APP_ENDS_S = 30.0
"""Wait for the server app of a stopped run, which may still write its last entry."""
KitArgument = Annotated[Path, typer.Argument(metavar="DIR", help="The coordinator's folder; its start.sh is running.")]


def run(
    directory: KitArgument,
    config: Annotated[
        Path | None,
        typer.Argument(help="Recipe; its nodes come from the SuperLink. Not needed with --run-dir."),
    ] = None,
    overrides: SetOption = [],  # noqa: B006
    resume: ResumeOption = False,
    run_dir: RunDirOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="If another run is going on, begin when it has ended.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a recipe on a kit's nodes; Ctrl-C leaves the run going on."""
    from scripts.deploy.operation import Operation
    from scripts.deploy.submission import Submission
    from scripts.run.federated_run import resolve
    from scripts.run.preflight import check_run_root
    from scripts.run.resuming import change_settings, resumed_run
    from scripts.run.run_folders import find_run, new_run
    from scripts.terminal.output import Output
    from trfmoe_core.config import check_federated

    output = Output(as_json)
    operation = Operation.of(directory)
    recipe = resolve(config, overrides, [], run_dir)
    earlier = find_run(recipe, run_dir, "federated") if resume or run_dir else None
    if earlier is None:
        check_run_root(Path(recipe.run_root))
    # Nodes have come and gone since a run began; the number that it began with is its own.
    num_nodes = earlier.recipe.num_nodes if earlier else len(operation.coordinator.nodes)
    recipe = recipe.model_copy(update={"nodes": [], "num_nodes": num_nodes})
    _await_turn(operation, directory, wait, output)
    check_federated(recipe, str(config or run_dir))
    command = f"deploy run {directory}"
    if earlier is None:
        folder = new_run(recipe)
    else:
        folder, recipe, changed = resumed_run(recipe, earlier.path, command)
        if changed:
            output.line(change_settings(folder, recipe, changed))
    output.line(f"run folder {folder.path}")
    submission = Submission(folder, operation.control, output.line)
    _follow(folder, operation, submission, output, directory)


def attach(directory: KitArgument, as_json: JsonOption = False) -> None:
    """Follow the run that is going on; Ctrl-C leaves it going on."""
    from scripts.deploy.operation import Operation
    from scripts.deploy.submission import Submission
    from scripts.terminal.output import Output

    output = Output(as_json)
    operation = Operation.of(directory)
    run_id, folder = operation.active_run()
    output.line(f"run folder {folder.path}")
    _follow(folder, operation, Submission(folder, operation.control, output.line), output, directory, run_id)


def stop(
    directory: KitArgument,
    now: Annotated[bool, typer.Option("--now", help="Give up the current round instead of finishing it.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Stop the run that is going on, after its current round, and sign it; what is committed stays."""
    from scripts.deploy.following import sign_ended
    from scripts.deploy.operation import Operation
    from scripts.run.federated_run import resume_hint
    from scripts.terminal.output import Output
    from server.run_folder.stop_request import request_stop

    output = Output(as_json)
    operation = Operation.of(directory)
    if now and (lost := operation.active_without_folder()):
        for run_id in lost:
            operation.control.stop(run_id)
        output.line("stopped a run whose folder is gone")
        output.result({"outcome": "stopped", "run_dir": None, "round": None, "exit_code": 0})
        return
    run_id, folder = operation.active_run()
    if now:
        operation.control.stop(run_id)
    else:
        request_stop(folder)
        output.line("it ends when the current round is committed; --now gives that round up")
    while run_id in operation.active_runs():
        time.sleep(LOOK_EVERY_S)
    end = time.monotonic() + SERVER_APP_ENDS_S
    while folder.is_locked() and time.monotonic() < end:
        time.sleep(LOOK_EVERY_S)
    sign_ended(folder, operation.kit, output)  # perhaps nobody follows the run
    last = max(folder.facts().committed, default=0)
    output.line(f"stopped after round {last}; {resume_hint(folder.path, f'deploy run {directory}')}")
    output.result({"outcome": "stopped", "run_dir": str(folder.path), "round": last, "exit_code": 0})


def status(directory: KitArgument, as_json: JsonOption = False) -> None:
    """Show a kit's nodes and runs."""
    from dataclasses import asdict

    from scripts.deploy.operation import Operation, node_rows, run_line
    from scripts.terminal.output import Output, one_line
    from server.run_folder.folder import RunFolder
    from server.run_folder.history import RunHistory
    from server.run_folder.journal import read_events

    output = Output(as_json)
    operation = Operation.of(directory)
    states = operation.control.nodes()
    runs = operation.control.runs()
    folders = {}
    for run_id, state in runs.items():
        if state.run_dir is not None and (state.run_dir / "recipe.yaml").is_file():
            folders[run_id] = RunFolder.open(state.run_dir)
    newest_id = list(folders)[-1] if folders else None
    newest, app = (folders[newest_id], runs[newest_id].app) if newest_id is not None else (None, "")
    active = newest is not None and newest.is_locked()
    rows = node_rows(operation, states, newest, app, active=active)
    for row in rows:
        where = "online " if row.online else "OFFLINE"
        told = [f"{row.name:<16}{where}{_since(row.since)}", row.doing, row.release]
        if row.loss is not None:
            told.append(f"loss {row.loss:.4f}")
        if row.strikes_text:
            told.append(row.strikes_text)
        if row.refused:
            told.append(f"refused: {row.refused}")
        output.line(one_line("  ".join(filter(None, told))))
    shown = []
    newest_of = {folder.path: run_id for run_id, folder in folders.items()}
    for run_id, state in runs.items():
        line = "no training, such as the roll call of an upgrade"
        if state.run_dir:
            line = "its folder is gone; if it has moved, go on with: " + moved_hint(directory)
        # A folder has one journal, which tells of the last run that went on in it.
        resumed = run_id in folders and newest_of[folders[run_id].path] != run_id
        if resumed:
            line = "resumed since"
        elif folder := folders.get(run_id):
            history, active = RunHistory(read_events(folder.events_path)), folder.is_locked()
            line = run_line(history, active)
            if not active and history.finished is None:
                line += f"; {_how_to_go_on(state, folder, directory)}"
        if not resumed and (state.run_dir or not state.finished):
            output.line(one_line(f"run {state.run_dir or run_id}: {state.status}; {line}"))
        shown.append({"run_dir": str(state.run_dir), "status": state.status, "line": line, "app": state.app})
    if not runs:
        output.line("no run yet")
    output.result({"outcome": "listed", "nodes": [asdict(row) for row in rows], "runs": shown, "exit_code": 0})


def logs(
    directory: KitArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
) -> None:
    """Show the log of the newest run's server app."""
    from scripts.deploy.lifecycle.endings import COLOURS
    from scripts.deploy.operation import Operation
    from scripts.processes.log_copy import LogCopy
    from scripts.terminal.output import Output
    from trfmoe_core.errors import ConfigError

    output = Output()
    operation = Operation.of(directory)
    runs = operation.control.runs()
    if not runs:
        raise ConfigError(f"{directory}: there was no run yet; start one by `trfmoe deploy run`")
    last = time.monotonic()

    def write(text: str) -> None:
        nonlocal last
        last = time.monotonic()
        output.line(COLOURS.sub("", text).rstrip("\n"))

    copy = LogCopy(operation.control, list(runs)[-1], write)
    copy.start()
    while copy.is_alive() and (follow or time.monotonic() - last < LOG_PAUSE_S):
        copy.join(0.2)


def _follow(
    folder: "RunFolder",
    operation: "Operation",
    submission: "Submission",
    output: "Output",
    directory: Path,
    run_id: int | None = None,
) -> None:
    """Submits a run, or attaches to `run_id`, shows it to its end and signs it."""
    from functools import partial

    from scripts.deploy.following import follow, sign_ended
    from scripts.run.federated_run import conclude
    from scripts.terminal.output import INTERRUPTED

    begin = submission.submit if run_id is None else partial(submission.attach, run_id)
    try:
        outcome: RunOutcome = follow(folder, output, submission, begin)
    except KeyboardInterrupt:
        if submission.run_id:
            output.line(
                f"the run goes on; follow it with: trfmoe deploy attach {directory}; "
                f"stop it with: trfmoe deploy stop {directory}"
            )
            output.result({"outcome": "followed", "run_dir": str(folder.path), "exit_code": INTERRUPTED})
            raise SystemExit(INTERRUPTED) from None  # typer.Exit would be reported as an interrupted command
        raise
    sign_ended(folder, operation.kit, output)
    conclude(outcome, output, f"deploy run {directory}")
    output.result(outcome.payload())
    raise typer.Exit(outcome.exit_code)


def _await_turn(operation: "Operation", directory: Path, wait: bool, output: "Output") -> None:
    """Waits until no other run is going on, or refuses.

    Raises:
        RunError: Another run is going on, and the user does not want to wait.
    """
    from trfmoe_core.errors import RunError

    told = False
    while active := operation.active_runs():
        other = list(active.values())[-1].run_dir or f"run {list(active)[-1]}"
        if not wait:
            raise RunError(
                f"{directory}: {other} is going on; follow it (trfmoe deploy attach {directory}), stop it "
                f"(trfmoe deploy stop {directory}), or give --wait to begin when it has ended"
            )
        if not told:
            output.line(f"waiting for {other} to end")
            told = True
        time.sleep(LOOK_EVERY_S)


def moved_hint(directory: Path) -> str:
    """Returns how to go on with a run whose folder lies elsewhere than where it began."""
    return f"trfmoe deploy run {directory} --run-dir RUN"


def _how_to_go_on(state: "RunState", folder: "RunFolder", directory: Path) -> str:
    """Returns what becomes of a run that nobody works on and that has no end in its journal."""
    from scripts.run.federated_run import resume_hint

    if not state.finished:
        return f"its server app starts or was lost: trfmoe deploy attach {directory} follows it, and goes on with it"
    return resume_hint(folder.path, f"deploy run {directory}")


def _since(moment: str) -> str:
    """Returns ` since 2026-01-31 12:00` in local time; an empty text if it never was."""
    import datetime

    try:
        return f" since {datetime.datetime.fromisoformat(moment).astimezone():%Y-%m-%d %H:%M}"
    except ValueError:
        return ""
