"""The outcome of a run: for the exit code, for `--json`, and for people."""

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scripts.terminal.output import Output
from server.report.page import write_report
from server.run_folder.history import RunHistory
from server.run_folder.ledger import Account, below, complaint, ledger

STOPPED = "finished:stopped"
"""Flower's status of a run that was ended by `trfmoe deploy stop --now`, which the journal does not know of."""


@dataclass(frozen=True, kw_only=True)
class RunOutcome:
    """The real outcome of a run, from its journal and from Flower's status."""

    completed: bool
    reason: str
    run_dir: Path
    history: RunHistory
    stopped: bool = False
    """Whether the operator ended it before its last round."""

    @property
    def ledger(self) -> dict[str, Account]:
        """What every node gave and what of it counted; empty where one machine trains alone."""
        return ledger(self.history) if self.history.unit == "round" else {}

    @property
    def short(self) -> dict[str, Account]:
        """The accounts that ended below the share that the recipe wants for everybody."""
        return below(self.ledger, self.history.min_share)

    @property
    def exit_code(self) -> int:
        """0 for a completed run, else 1."""
        return 0 if self.completed else 1

    def payload(self) -> dict[str, Any]:
        """Returns the outcome for programs."""
        history = self.history
        rounds = history.outvoted_rounds()
        last = max(history.committed, default=None)
        return {
            "outcome": "completed" if self.completed else "stopped" if self.stopped else "failed",
            "reason": self.reason or None,
            "rounds": len(history.committed),
            "steps": last if history.unit == "step" else None,
            "run_dir": str(self.run_dir),
            "report": str(self.run_dir / "report.html"),
            "bits_per_byte": history.bits_per_byte,
            "outvoted": {name: len(rounds.get(name, [])) for name in sorted({*history.nodes, *rounds})},
            "outvoted_rounds": rounds,
            "ledger": {name: {**asdict(account), "share": account.share} for name, account in self.ledger.items()},
            "below_min_share": sorted(self.short),
            "digest": None if last is None else history.committed[last]["digest"],
            "best_round": history.best_round,
            "exit_code": self.exit_code,
        }


def judge(history: RunHistory, run_dir: Path, status: str = "finished:completed", details: str = "") -> RunOutcome:
    """Returns the outcome: completed only when the journal and Flower both say so."""
    finished = history.finished or {}
    completed = status == "finished:completed" and finished.get("outcome") == "completed"
    at_once = status == STOPPED and not finished
    reason = ""
    if at_once:
        reason = f"the operator stopped it at once; what came after round {max(history.committed, default=0)} is lost"
    elif not completed:
        told = "" if details in ("", "N/A") else details
        reason = finished.get("reason") or told or f"the run ended with status {status}"
    stopped = at_once or finished.get("outcome") == "stopped"
    return RunOutcome(completed=completed, reason=reason, run_dir=run_dir, history=history, stopped=stopped)


def show_results(outcome: RunOutcome, output: Output) -> None:
    """Writes where the results of a run are, and why it failed if it did."""
    output.line(f"run folder {outcome.run_dir}")
    output.line(f"report     {write_report(outcome.run_dir)}")
    if offline := sorted((outcome.run_dir / "wandb").glob("offline-run-*")):
        output.line(f"W&B        {outcome.run_dir / 'wandb'}, nothing was sent; to send it: {sync_command(offline)}")
    for name, account in outcome.short.items():
        output.line(f"warning: {complaint(name, account)}", style="bold red")
    if outcome.stopped:
        output.line(f"the run was stopped: {outcome.reason}")
    elif not outcome.completed:
        output.line(f"the run failed: {outcome.reason}", style="bold red")


def sync_command(offline: list[Path]) -> str:
    """Returns the command that sends the runs that W&B wrote offline."""
    return "wandb sync " + " ".join(shlex.quote(str(path)) for path in offline)
